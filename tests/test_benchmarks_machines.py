"""Sweeps by many processes: the files of a run of one process, whatever dies in between."""

import dataclasses
import functools
import importlib.util
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from processes import cells as cells_of
from report_pages import board

from semcom_gym.benchmarks import certificates, cli, leaderboard, machines, protocol, store, table
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.benchmarks.figures import sweep

pytest.importorskip("joblib")
PYTHON = (sys.executable, "-m")
STARTED_S = 300  # for a part of a cluster to be there, on a machine with other work
CRRA = ("benchmark", "--env", "SemCom/CRRA-v0", "--method")
SWEEP = (*CRRA, "fra", "fast", "crra", "--agent", "-n", "12", "--chunk", "2", "--single", "0")
SLOWEST = "*-crra-0-*.json"


@pytest.fixture(scope="module")
def two():
    return machines.connect(None, 2)


# --- the same results ----------------------------------------------------------------------------------------------


def test_loky_writes_the_files_of_a_sequential_run(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    agents = ["apg"] if importlib.util.find_spec("stable_baselines3") else []
    asked = [*CRRA, "fast", "equal", "--agent", *agents]
    for name, extra in {"one": [], "two": ["--jobs", "2"]}.items():
        folders = ["--cells", str(tmp_path / name / "cells"), "--out", str(tmp_path / name / "out")]
        assert cli.main([*asked, "-n", "5", "--chunk", "2", *extra, *folders]) == 0
    one, two = cells_of(tmp_path / "one/cells"), cells_of(tmp_path / "two/cells")
    assert one == two
    timed = 2 + len(agents)  # one at a time
    assert len(one) == 3 * 3 + len(agents) + timed  # three methods with the anchor, three chunks each
    losses = [(tmp_path / name / "out/losses.csv").read_text() for name in ("one", "two")]
    assert losses[0] == losses[1]
    assert losses[0].count("\n") == 1 + 2 + len(agents)
    boards = json.loads((tmp_path / "two/out/leaderboard.json").read_text())["leaderboards"]
    assert [board["jobs"] for board in boards] == [2]
    notes = "Times were measured with up to 2 computations at once"
    assert [notes in (tmp_path / name / "out/leaderboard.md").read_text() for name in ("one", "two")] == [False, True]


def test_proofs_and_figures_are_those_of_one_process(tmp_path, two, monkeypatch):
    monkeypatch.setattr(certificates, "CHUNK", 2)
    monkeypatch.setattr(certificates, "FOLDER", tmp_path)
    task = protocol.task("SemCom/CRRA-v0", n=4)
    point = functools.partial(sweep.Point, params=task.params)
    lines = {name: (point(1.0, method=name), point(2.0, method=name)) for name in ("equal", "fra")}  # a point twice
    figure = sweep.Figure("figure_01", "", "", "", lines, lambda params, objective: objective)
    found = []
    for name, workers in {"one": None, "two": two}.items():
        cells = store.Store(tmp_path / name, workers)
        proof = certificates.prove(task, cells)
        drawn = sweep.compute("crra", [figure], 3, cells)["figure_01"]
        assert cells.computed == 2 + 2
        assert cells.kept().startswith("4 finished cell(s)")
        found.append((proof.bound, proof.best, drawn["fra"].value, drawn["equal"].terms, proof.jobs))
    np.testing.assert_equal(found[0][:4], found[1][:4])
    assert (found[0][4], found[1][4]) == (1, 2)
    assert cells_of(tmp_path / "one") == cells_of(tmp_path / "two")


def test_a_profile_measures_as_one_process_does(tmp_path, two):
    torch = pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from semcom_gym.benchmarks import profiles
    from semcom_gym.transceivers.deepjscc import network, training

    torch.set_num_threads(1)  # as in a worker: sums in another order are other numbers
    made = network.DeepJSCC(network.Config(width=8)).eval()
    trained = training.Trained(made, {}, {}, "0")
    crops = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = []
    for name, workers in {"one": None, "two": two}.items():
        asked = ((), "small", training.SIZES["small"], "cpu", 0, tmp_path / name, tmp_path / name)
        profile = profiles.Profile(*asked, workers=workers)
        found.append(profiles._surface(profile, trained, profiles.HeldOut("drawn", "drawn", crops, {})))
    assert len(found[0]) == len(profiles.SNRS_DB) * len(profiles.MAPS)
    assert found[0] == found[1]
    assert cells_of(tmp_path / "one/cells") == cells_of(tmp_path / "two/cells")


def test_what_has_workers_reaches_them_without(two):
    assert pickle.loads(pickle.dumps({"workers": two})) == {"workers": None}


def test_a_method_in_pieces_decides_as_on_all(tmp_path):
    task = protocol.task("SemCom/ASCC-v0", n=5)
    solver = leaderboard.solver("ascc", "fast")
    cells = store.Store(tmp_path)
    [[whole]], [[pieces]] = (leaderboard.decide(task, [solver], cells, chunk) for chunk in (None, 2))
    assert cells.computed == 1 + 3
    np.testing.assert_allclose(pieces.objective, whole.objective, rtol=1e-12)
    np.testing.assert_array_equal(pieces.feasible, whole.feasible)


def test_bounds_proven_side_by_side_say_so_in_their_file(tmp_path, two, monkeypatch):
    monkeypatch.setattr(certificates, "FOLDER", tmp_path)
    task = protocol.task("SemCom/CRRA-v0", n=2)
    file = certificates.ship(task, store.Store(tmp_path / "cells", two))
    assert json.loads(file.read_text())["jobs"] == 2
    assert certificates.shipped(task).jobs == 2


def test_what_a_table_says_of_times():
    assert table.timing(board()) == ""
    found = table.text(dataclasses.replace(board(), jobs=3, chunk=5))
    assert "up to 3 computations at once" in found
    assert "Solvers decided 5 instances in a call." in found


# --- workers that die ----------------------------------------------------------------------------------------------


def calls_of(folder, deadly):
    """Six calls that return their number; those in ``deadly`` first kill their process so many times."""

    def call(number):
        for life in range(deadly.get(number, 0)):
            grave = Path(folder, f"{number}-{life}")
            if not grave.exists():
                grave.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return number * 10

    call.__module__ = "__main__"  # pickled by value: a worker does not see the tests
    return {number: functools.partial(call, number) for number in range(6)}


def test_what_a_killed_worker_had_is_computed_again(tmp_path, two):
    assert dict(two.run(calls_of(tmp_path, {1: 1, 4: 2}))) == {number: number * 10 for number in range(6)}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_worker_leaves_ctrl_c_to_its_parent(two):
    def interrupt(number):
        os.kill(os.getpid(), signal.SIGINT)
        return number

    interrupt.__module__ = "__main__"
    assert dict(two.run({n: functools.partial(interrupt, n) for n in range(4)})) == {n: n for n in range(4)}


def test_workers_that_keep_dying_end_the_work_in_one_line(tmp_path, two):
    found = two.run(calls_of(tmp_path, {5: 99}))
    with pytest.raises(UserError, match="loky: workers died 3 times in a row without a result between") as caught:
        dict(found)
    assert "\n" not in str(caught.value)


def test_what_a_call_raises_is_raised_here_and_the_rest_is_kept(tmp_path, two):
    def compute(number):
        if number == 2:
            raise ZeroDivisionError("a fault")
        return {"number": number}

    compute.__module__ = "__main__"
    work = [store.Work(f"w{n}", {"n": n}, functools.partial(compute, n)) for n in range(3)]
    with pytest.raises(ZeroDivisionError, match="a fault"):
        store.Store(tmp_path, two).cells(work, "work")
    again = store.Store(tmp_path)
    with pytest.raises(ZeroDivisionError):
        again.cells(work, "work")
    assert again.reused >= 1


def test_workers_with_other_code_are_refused(two, monkeypatch):
    monkeypatch.setattr(machines.store, "code_version", lambda *floors: "0.0.0+other")
    with pytest.raises(UserError, match=r"the worker on .* has other code of semcom-gym"):
        list(two.run({0: int}))


def start(folder, *extra):
    """The sweep, in a process group of its own."""
    return processes.start(folder, *SWEEP, "--cells", "cells", "--out", "out", *extra)


def wait_for_cells(process, folder, count):
    """Until ``count`` cells of the slowest method are there."""
    processes.wait(process, lambda: len(list((folder / "cells").glob(SLOWEST))) >= count)


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(tmp_path):
    pytest.importorskip("cvxpy")
    process = start(tmp_path, "--jobs", "2")
    wait_for_cells(process, tmp_path, 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    count = len(list((tmp_path / "cells").glob("*.json")))
    assert err == (
        f"semcom-gym: interrupted; {count} finished cell(s) are kept in cells; the same command goes on from there\n"
    )
    assert not list((tmp_path / "cells").glob(".*"))
    processes.ended(process.pid)


ENDLESS = """
import time
from semcom_gym.benchmarks import machines
def call(number):
    open(f"{number}", "x").close()
    time.sleep(600)
dict(machines.connect(None, 2).run({n: lambda n=n: call(n) for n in range(2)}))
"""


def test_workers_at_work_end_with_the_process_that_started_them(tmp_path):
    process = processes.start(tmp_path, program=(sys.executable, "-c", ENDLESS))
    processes.wait(process, lambda: all((tmp_path / f"{n}").exists() for n in range(2)))
    process.kill()
    process.wait()
    processes.ended(process.pid)


# --- mistakes ------------------------------------------------------------------------------------------------------

MISTAKES = {
    "backend": (("lokky",), "unknown backend 'lokky'; valid: loky, ray, dask"),
    "jobs": (("loky", 0), "jobs must be >= 1, got 0"),
    "jobs of another type": (("loky", 1.5), "jobs must be an integer, got 1.5"),
    "address of nothing": ((None, 2, "HOST:1"), "say --backend ray or --backend dask"),
    "address of this machine": (("loky", 2, "HOST:1"), "not of loky, which runs on this machine"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    arguments, message = MISTAKES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        machines.connect(*arguments)


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_missing_package_names_its_extra(backend, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main([*SWEEP[:5], "--agent", "-n", "2", "--backend", backend]) == 2
    expected = rf"semcom-gym: error: --backend {backend} needs {package}: pip install 'semcom-gym[{backend}]'"
    assert capsys.readouterr().err == expected + "\n"


def test_one_job_is_this_process():
    assert machines.connect(None) is None
    assert machines.connect(None, 1) is None
    assert machines.connect("loky").jobs >= 1


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("dask", "distributed")])
@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named(backend, package, tmp_path):
    pytest.importorskip(package)
    address = f"127.0.0.1:{free_port()}"
    done = subprocess.run(
        [*processes.COMMAND, *SWEEP, "--backend", backend, "--address", address], cwd=tmp_path, capture_output=True,
        text=True, timeout=STARTED_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"no {backend} cluster at '{address}' can be reached" in done.stderr


# --- clusters ------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A head and two workers on this machine. arguments: that join it."""

    def __init__(self, folder):
        self.folder, self.started, self.environment = folder, [], dict(os.environ)

    def start(self, *command, until):
        log = self.folder / f"log{len(self.started)}"
        with log.open("w") as stream:
            self.started.append(
                subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=stream, stderr=stream)
            )
        end = time.monotonic() + STARTED_S
        while until not in log.read_text():
            assert self.started[-1].poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        return self.started[-1]

    def stop(self):
        for process in reversed(self.started):
            process.terminate()
            process.wait(60)


def running(word, *which):
    """The number of a process with ``word`` in its command line, whose length nothing limits."""
    listed = subprocess.run(["ps", "-ww", "-o", "pid=,args=", *which], capture_output=True, text=True, check=True)
    return next(int(line.split()[0]) for line in listed.stdout.splitlines() if word in line)


def dask(cluster):
    """Two workers without a nurse, so that one that is killed stays away, as a machine does."""
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
    cluster.start(*PYTHON, *scheduler, "--no-dashboard", until="Scheduler at")
    worker = ("distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard")
    workers = [cluster.start(*PYTHON, *worker, until="Registered to") for _ in range(2)]
    return ["--backend", "dask", "--address", address], lambda process: workers[0].pid


def ray(cluster):
    """A node with two cores; its home, with the token that guards it, is the folder of the test."""
    pytest.importorskip("ray")
    cluster.environment |= {"HOME": str(cluster.folder), "RAY_AUTH_MODE": "token"}
    command = str(Path(sys.executable).with_name("ray"))
    subprocess.run([command, "get-auth-token", "--generate"], env=cluster.environment, capture_output=True, check=True)
    port = str(free_port())
    options = ("--num-cpus", "2", "--object-store-memory", "100000000", "--include-dashboard=false")
    head = ("start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", port, "--disable-usage-stats")
    cluster.start(command, *head, *options, until="--block")

    def victim(process):
        return running("ray::PoolActor.run_batch", "-e")

    return ["--backend", "ray", "--address", f"127.0.0.1:{port}"], victim


def loky(cluster):
    def victim(process):
        return running("popen_loky", "--ppid", str(process.pid))

    return ["--jobs", "2"], victim


@pytest.mark.slow
@pytest.mark.parametrize("backend", [loky, dask, ray])
def test_a_sweep_outlives_one_of_its_two_workers(backend, tmp_path, monkeypatch):
    pytest.importorskip("cvxpy")
    cluster = Cluster(tmp_path)
    started = []
    try:
        arguments, victim = backend(cluster)
        for name in ("HOME", "RAY_AUTH_MODE"):
            if name in cluster.environment:
                monkeypatch.setenv(name, cluster.environment[name])
        process = start(tmp_path / "two", *arguments)
        started.append(process)
        wait_for_cells(process, tmp_path / "two", 2)
        os.kill(victim(process), signal.SIGKILL)
        assert process.wait(400) == 0, process.communicate()
    finally:
        for process in started:
            process.kill()
        cluster.stop()
    alone = start(tmp_path / "one")
    assert alone.wait(400) == 0, alone.communicate()
    assert cells_of(tmp_path / "one/cells") == cells_of(tmp_path / "two/cells")
    assert len(cells_of(tmp_path / "two/cells")) == 3 * 6


@pytest.mark.slow
def test_jobs_of_a_queue_are_a_dask_cluster(tmp_path):
    """The way to Slurm, with jobs that are started by a shell."""
    local = pytest.importorskip("dask_jobqueue.local")
    options = {"cores": 1, "processes": 1, "memory": "2GB", "log_directory": str(tmp_path)}
    options["scheduler_options"] = {"host": "127.0.0.1"}
    with local.LocalCluster(python=sys.executable, **options) as cluster:
        cluster.scale(2)
        cluster.wait_for_workers(2, timeout=STARTED_S)
        process = start(tmp_path, "--backend", "dask", "--address", cluster.scheduler_address)
        assert process.wait(400) == 0, process.communicate()
    jobs = json.loads((tmp_path / "out/leaderboard.json").read_text())["leaderboards"][0]["jobs"]
    assert jobs == 2
