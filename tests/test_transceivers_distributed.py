"""Iterative training in processes: against one process, resumed, with devices that fail, and what it costs."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import cli
from semcom_gym.benchmarks import rounds as report
from semcom_gym.transceivers import checkpoint
from semcom_gym.transceivers.deepjscc import distributed, measure, rounds, training
from semcom_gym.transceivers.deepjscc.distributed import Device, DeviceLostError, Link
from semcom_gym.transceivers.deepjscc.network import Config, DeepJSCC

torch.set_num_threads(1)
LINKS = (Link(4, 3.0), Link(9, 12.5))
SETTINGS = rounds.Settings(rounds=6, batch=8, width=8, maps=12, side=16, pool=61, every=2, seed=3)


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with small pictures of coloured noise, in the working directory."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for k in range(30):
        small = Image.fromarray(rng.integers(256, size=(6, 6, 3), dtype=np.uint8))
        small.resize((48, 48), Image.Resampling.BICUBIC).save(folder / "pictures" / f"{k}.png")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(rounds, "FOLLOWED", 20)
        yield folder


def train(path: Path, settings: rounds.Settings = SETTINGS, **options: Any) -> rounds.Trained:
    return rounds.train(["pictures"], LINKS, settings, path=path, progress=False, timeout_s=30.0, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[rounds.Trained, Path]:
    """A run that was not interrupted, and the folder of its log."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder / "a.pt", tensorboard=folder / "log", cost={"time_s": 0.5}), folder / "log"


def weights(trained: rounds.Trained) -> list[str]:
    return [checkpoint.weights_hash(network.state_dict()) for network in trained.networks]


def initial() -> DeepJSCC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return DeepJSCC(Config(8, 12))


def device(number: int = 0, link: Link = LINKS[0], **changes: Any) -> Device:
    crops = np.random.default_rng(1).integers(256, size=(12, 3, 16, 16), dtype=np.uint8)
    return Device(**{"number": number, "config": Config(8, 12), "link": link, "crops": crops, "batch": 4, "seed": 0}
                  | changes)  # fmt: skip


def sent_by(network: DeepJSCC, made: Device, round_number: int) -> torch.Tensor:
    with torch.no_grad():
        symbols = network.encode(made.data(round_number), *made.link.batch(made.batch))
    return symbols[:, : made.symbols]


def devices_left() -> list[Any]:
    """Processes of :mod:`distributed` that run: those of other tests' pools are none of them."""
    return [p for p in multiprocessing.active_children() if isinstance(p, context.SpawnProcess)]


def no_process_is_left(pids: list[int]) -> bool:
    return not devices_left() and not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    """Whether the process is there and no zombie, whose command line is empty."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


# --- the algorithm ---------------------------------------------------------------------------------------------------
def reference(models: str) -> list[DeepJSCC]:
    """Algorithm 1 in one process, with the network's own forward pass."""
    pool, _ = training.crops(["pictures"], "train", 16, 61, 3)
    parts = np.array_split(np.random.default_rng(3).permutation(61), 2)
    networks = [initial(), initial()][: 2 if models == "own" else 1]
    optimizers = [torch.optim.Adam(network.parameters(), 1e-3) for network in networks]
    for number in range(6):
        losses = []
        for n, (part, link) in enumerate(zip(parts, LINKS, strict=True)):
            chosen = np.random.default_rng([3, n, number, 1]).integers(len(part), size=8)
            images = pool[torch.from_numpy(part[chosen])].float() / 255.0
            generator = torch.Generator().manual_seed(int(np.random.default_rng([3, n, number, 2]).integers(2**63)))
            state = torch.full((8,), link.snr_db), torch.full((8,), link.maps)
            decoded = networks[n % len(networks)](images, *state, "awgn", generator)
            losses.append((decoded - images).square().mean((1, 2, 3)).mean())
        for optimizer in optimizers:
            optimizer.zero_grad()
        (sum(losses) / (1 if models == "own" else 2)).backward()  # type: ignore[union-attr]
        for optimizer in optimizers:
            optimizer.step()
    return networks


@pytest.mark.parametrize("models", ["own", "shared"])
def test_it_is_the_algorithm_in_one_process(tmp_path: Path, whole: tuple[rounds.Trained, Path], models: str) -> None:
    trained = whole[0] if models == "own" else train(tmp_path / "a.pt", dataclasses.replace(SETTINGS, models="shared"))
    expected = reference(models)
    assert len(trained.networks) == len(expected) == (2 if models == "own" else 1)
    for found, network in zip(trained.networks, expected, strict=True):
        for value, other in zip(found.state_dict().values(), network.state_dict().values(), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6)
    rows = trained.record["rows"]
    assert [row["round"] for row in rows] == [0, 2, 4, 6]
    assert rows[0]["loss"] is None
    crops, _ = training.crops(["pictures"], "validation", 16, 20, 3)
    for n, link in enumerate(LINKS):
        network = trained.networks[n % len(trained.networks)]
        for name, (maps, snr_db) in {"psnr_db": (link.maps, link.snr_db), "anchor_db": (12, 10.0)}.items():
            point = measure.psnr_db(network, crops, [maps], snr_db, seed=3)[0]["psnr_db"]
            assert rows[-1][name][n] == point
    assert devices_left() == []
    assert not dist.is_initialized()


def test_interrupted_and_resumed_it_ends_with_the_same_bits(
    tmp_path: Path, whole: tuple[rounds.Trained, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    update = rounds.Station.update

    def interrupting(self: rounds.Station, number: int, arrived: Any) -> list[float]:
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return update(self, number, arrived)

    with monkeypatch.context() as patched:
        patched.setattr(rounds.Station, "update", interrupting)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "a.pt", dataclasses.replace(SETTINGS, rounds=4))
    assert devices_left() == []
    kept = checkpoint.load(tmp_path / "a.pt", rounds.KIND, ("record",))["record"]
    assert (kept["round"], len(kept["losses"])) == (3, 1)  # in the middle between two rows
    parts = train(tmp_path / "a.pt")
    assert weights(parts) == weights(whole[0])
    assert parts.record["rows"] == whole[0].record["rows"]
    monkeypatch.setattr(rounds.Station, "update", pytest.fail)
    assert weights(train(tmp_path / "a.pt")) == weights(whole[0])  # nothing is left: no process is started
    with pytest.raises(ValueError, match="is of round 6, past the 4 asked for"):
        train(tmp_path / "a.pt", dataclasses.replace(SETTINGS, rounds=4))
    with pytest.raises(ValueError, match="was made with batch 8, not 7: name another folder"):
        train(tmp_path / "a.pt", dataclasses.replace(SETTINGS, batch=7))


def test_the_log_has_losses_quality_and_what_the_rounds_cost(whole: tuple[rounds.Trained, Path]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = accumulator.EventAccumulator(str(whole[1])).Reload()
    assert [(event.step, event.value) for event in log.Scalars("cost/time_s")] == [(0, 0), (2, 1), (4, 2), (6, 3)]
    losses = [event.value for event in log.Scalars("loss")]
    for k, row in enumerate(whole[0].record["rows"][1:]):
        assert np.mean(row["loss"]) == pytest.approx(np.mean(losses[2 * k : 2 * k + 2]), rel=1e-6)
        assert log.Scalars("validation/psnr_db_device_1")[k + 1].value == pytest.approx(row["psnr_db"][1], rel=1e-6)


def test_sgd_is_the_printed_step() -> None:
    made = device()
    station = rounds.Station([made], rounds.Settings(1, optimizer="sgd", width=8, maps=12, every=1), Config(8, 12))
    network = station.network(0)
    before = copy.deepcopy(network)
    losses = station.update(0, [sent_by(network, made, 0)])
    images, generator = made.data(0), made.noise(0)
    loss = (before(images, *made.link.batch(4), "awgn", generator) - images).square().mean()
    loss.backward()
    assert losses == [pytest.approx(loss.item(), rel=1e-5)]
    for new, old in zip(network.parameters(), before.parameters(), strict=True):
        step = old.grad if old.grad is not None else torch.zeros_like(old)
        torch.testing.assert_close(new.detach(), (old - step).detach(), rtol=1e-5, atol=1e-7)


def test_a_run_that_diverges_says_so() -> None:
    made = device()
    settings = rounds.Settings(2, optimizer="sgd", learning_rate=1e18, width=8, maps=12, every=1)
    station = rounds.Station([made], settings, Config(8, 12))
    station.update(0, [sent_by(station.network(0), made, 0)])
    with pytest.raises(ValueError, match="loss of device 0 is not finite in round 1: try a smaller learning rate"):
        station.update(1, [sent_by(station.network(0), made, 1)])


def test_every_round_and_device_has_its_own_batch_and_noise() -> None:
    draws = [device(number, seed=seed).data(k) for number in (0, 1) for seed in (0, 1) for k in (0, 1)]
    noises = [device(number, seed=seed).noise(k).initial_seed() for number in (0, 1) for seed in (0, 1) for k in (0, 1)]
    assert len(set(noises)) == 8
    assert not any(torch.equal(a, b) for k, a in enumerate(draws) for b in draws[:k])
    assert torch.equal(device().data(5), device().data(5))


# --- devices that fail -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "sign", "message"),
    [
        (1, signal.SIGKILL, "device 1 was ended by SIGKILL in round 3"),
        (0, signal.SIGSTOP, "device 0 did not answer within 1 s in round 3"),
    ],
)
def test_a_device_that_dies_or_hangs_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sign: signal.Signals, message: str
) -> None:
    distribute, pids = distributed.Group.distribute, []

    def failing(self: distributed.Group, round_number: int, *rest: Any) -> None:
        if round_number == 3:  # when every device waits for this
            pids.extend(process.pid for process in self.processes)
            os.kill(pids[number], sign)
            self.timeout_s = 1.0 if sign == signal.SIGSTOP else self.timeout_s
        distribute(self, round_number, *rest)

    monkeypatch.setattr(distributed.Group, "distribute", failing)
    with pytest.raises(DeviceLostError, match=message) as caught:
        train(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
    assert len(pids) == 2
    assert no_process_is_left(pids)
    assert not dist.is_initialized()
    assert checkpoint.load(tmp_path / "a.pt", rounds.KIND, ("record",))["record"]["round"] == 2


SCRIPT = """
import os, signal
import numpy as np
from semcom_gym.transceivers.deepjscc import distributed
from semcom_gym.transceivers.deepjscc.network import Config

if __name__ == "__main__":
    crops = np.zeros((4, 3, 8, 8), np.uint8)
    devices = [distributed.Device(n, Config(8, 12), distributed.Link(4, 3.0), crops, 2, 0) for n in range(2)]
    with distributed.group(devices) as group:
        print(*(process.pid for process in group.processes), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_devices_end_when_the_base_station_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    found = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    pids = [int(word) for word in found.stdout.split()]
    assert (found.returncode, len(pids)) == (-signal.SIGKILL, 2), found.stderr
    deadline = time.monotonic() + 20
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, pids))


def test_symbols_that_are_not_those_of_the_shared_data_are_refused() -> None:
    made = device()
    station = rounds.Station([made], SETTINGS, Config(8, 12))
    sent = sent_by(station.network(0), made, 0)
    with pytest.raises(DeviceLostError, match=r"device 0 sent other symbols in round 1 than its data and encoder give"):
        station.update(1, [sent])
    sent[0, 0] = math.nan
    with pytest.raises(DeviceLostError, match="largest difference nan"):
        station.update(0, [sent])


# --- the cell --------------------------------------------------------------------------------------------------------
def test_time_energy_ratio_and_snr_are_those_of_the_allocation() -> None:
    """One device, equations (5)-(15) in plain Python."""
    p = report.params("default", 1, {"samples": 16})
    found = report.cell(p, "equal_bandwidth", 5)
    problem = envs.problem("training")
    cell = problem.sample(p, np.random.default_rng(5), 1)
    a = baselines.solve("training", p, cell, "equal_bandwidth").allocation
    power, band, f, h, share = (float(x[0, 0]) for x in (a.power_w, a.bandwidth_hz, a.device_frequency_hz,
                                                         a.bs_frequency_hz, a.ratio))  # fmt: skip
    c1, c2 = float(cell.device_cycles[0, 0]), float(cell.bs_cycles[0, 0])
    snr = power * float(cell.gain[0, 0]) / (10 ** (-174 / 10) * 1e-3 * band)
    up = share * 1e6 * 16 / (band * math.log2(1 + snr))
    assert found.time_s == pytest.approx(16 * c1 / f + up + 16 * c2 / h, rel=1e-9)
    assert found.energy_j == pytest.approx(16e-28 * (c1 * f**2 + c2 * h**2) + power * up, rel=1e-9)
    assert found.ratio == (share,)
    assert [link.maps for link in found.links] == [max(1, int(share * 96 + 1e-6))]
    assert found.links[0].snr_db == pytest.approx(10 * math.log10(snr), rel=1e-9)


@pytest.mark.parametrize(
    ("share", "maps"), [(0.1, 9), (0.3, 28), (1 / 6, 16), (1 / 6 - 1e-9, 16), (0.001, 1), (1.0, 96)]
)
def test_maps_round_down(share: float, maps: int) -> None:
    assert report.maps_that_fit(share) == maps


def test_the_slowest_device_sets_the_time_and_all_pay() -> None:
    p = report.params("default", 5, {})
    found = report.cell(p, "fast", 1)
    problem = envs.problem("training")
    cell = problem.sample(p, np.random.default_rng(1), 1)
    terms = problem.evaluate(p, cell, baselines.solve("training", p, cell, "fast").allocation).terms
    assert found.time_s == max(terms["time_s"][0])
    assert found.energy_j == pytest.approx(math.fsum(terms["energy_j"][0]), rel=1e-12)


# --- the command -----------------------------------------------------------------------------------------------------
BASE = ("rounds", "--devices", "2", "--width", "8", "--side", "16", "--images", "pictures", "--seed", "1", "--out")


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main([*BASE, *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_from_the_command_to_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (str(tmp_path / "out"), "--rounds", "4", "--every", "2", "--set", "samples=4", "--method", "fast",
                 "--models", "shared")  # fmt: skip
    code, out, err = command(capsys, *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((tmp_path / "out" / "rounds.json").read_text())
    assert str(tmp_path) not in (tmp_path / "out" / "rounds.json").read_text()
    with (tmp_path / "out" / "rounds.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["round"], row["device"]) for row in rows] == [(str(k), str(n)) for k in (0, 2, 4) for n in (0, 1)]
    cell = report.cell(report.params("default", 2, {"samples": 4}), "fast", 1)
    for row in rows:
        number, n = int(row["round"]), int(row["device"])
        assert float(row["time_s"]) == pytest.approx(number * cell.time_s, rel=1e-5)
        assert float(row["energy_j"]) == pytest.approx(number * cell.energy_j, rel=1e-5)
        assert (row["loss"] == "") == (number == 0)
        assert int(row["maps"]) == cell.links[n].maps
        assert float(row["ratio"]) * 96 >= int(row["maps"]) - 1e-3
    assert found["runs"][0]["devices"][0]["symbols_up"] == 4 * cell.links[0].maps * 16 * 16 // 32
    assert (tmp_path / "out" / "rounds.png").stat().st_size > 10_000
    files = {name: (tmp_path / "out" / name).read_bytes() for name in ("rounds.csv", "rounds.json", "rounds.png")}
    code, out, _ = command(capsys, *arguments)  # nothing is left to do
    assert code == 0
    assert "fast, shared models: 4 rounds" in out
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", "0"), "rounds must be >= 1, got 0"),
        (("--rounds", "30"), "rounds must be a multiple of every (20), got 30"),
        (("--devices", "0"), "--devices must be >= 1, got 0"),
        (("--models", "ours"), "unknown models 'ours'; valid: own, shared"),
        (("--method", "fasst"), "unknown training method 'fasst'; valid: random,"),
        (("--preset", "huge"), "unknown training preset 'huge'"),
        (("--optimizer", "lion"), "unknown optimizer 'lion'; valid: adam, sgd"),
        (("--learning-rate", "-1"), "learning_rate must be finite, > 0"),
        (("--side", "12"), "side must be a multiple of 8, got 12"),
        (("--timeout", "0"), "--timeout must be finite, > 0"),
        (("--set", "num_users=3"), "is set by --devices, not by --set num_users"),
        (("--set", "colour=3"), "unknown argument 'colour'"),
        (("--set", "samples=0"), "samples must be >= 1, got 0"),
        (("--images", "nowhere"), "nowhere"),
        (("--tensorboard", "pictures/0.png"), "cannot make the folder 'pictures/0.png'"),
        (("--method", "average", "--set", "psnr_range_db=(29.0,29.5)"), "'average' has no feasible allocation for the"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = command(capsys, str(tmp_path / "out"), *arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert list(tmp_path.glob("out/*")) == []


def test_a_lost_device_is_one_line_with_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> Any:
        raise DeviceLostError("device 1 was ended by SIGKILL in round 3")

    monkeypatch.setattr(distributed, "group", lost)
    code, _, err = command(capsys, str(tmp_path / "out"))
    assert code == 2
    assert err == "semcom-gym: error: device 1 was ended by SIGKILL in round 3; there was no checkpoint yet\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Link(0, 3.0), "maps must be >= 1"),
        (lambda: Link(3, math.nan), "snr_db must be finite"),
        (lambda: device(link=Link(13, 0.0)), "device 0 would send 13 maps of 12"),
        (lambda: device(crops=np.zeros((3, 3, 12, 8), np.uint8)), r"multiples of 8, got \(3, 3, 12, 8\)"),
        (lambda: device(crops=np.zeros((3, 3, 8, 8))), "crops must be uint8"),
        (lambda: device(batch=0), "batch must be >= 1"),
        (lambda: distributed.group([]).__enter__(), "at least one device"),
        (lambda: distributed.group([device()], 0.0).__enter__(), "timeout_s must be finite, > 0"),
        (lambda: rounds.Settings(20, models="both"), "unknown models 'both'"),
        (lambda: rounds.train(["pictures"], (), SETTINGS, path="x.pt"), "at least one link"),
        (lambda: train(Path("x.pt"), dataclasses.replace(SETTINGS, pool=1)), "at least one crop for each of 2 devices"),
    ],
)
def test_mistakes_in_values(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_group_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="this process is in a process group"):
            distributed.group([device()]).__enter__()
    finally:
        dist.destroy_process_group()
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    with pytest.raises(ValueError, match="no folder for the processes to meet in: No such file"):
        distributed.group([device()]).__enter__()
