"""Iterative training over the allocations of solvers: quality against rounds, time and energy, with its report."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import pictures, profile_common, rounds_curve, store
from semcom_gym.envs import validate
from semcom_gym.transceivers import checkpoint
from semcom_gym.transceivers.deepjscc import distributed, measure, rounds
from semcom_gym.transceivers.deepjscc.network import MAPS_PER_RATIO, ratio

PROBLEM = "training"
COLUMNS = (
    "method", "models", "round", "time_s", "energy_j", "device", "ratio", "maps", "snr_db", "loss", "psnr_db",
    "anchor_psnr_db",
)  # fmt: skip
WEIGHT_BIT = 32
CODE = ("transceivers", "baselines", "envs")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell and what one method makes of it. Per device: link, share rho_n of the data, least PSNR that the instance
    asks for and PSNR that (57) promises [dB]. time_s: max_n T_n (14), energy_j: sum_n E_n (15), of one round.
    """

    method: str
    links: tuple[distributed.Link, ...]
    ratio: tuple[float, ...]
    min_psnr_db: tuple[float, ...]
    promised_psnr_db: tuple[float, ...]
    time_s: float
    energy_j: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked for. ``settings`` holds all but ``models``, which runs over ``models``."""

    preset: str
    changes: dict[str, Any]
    devices: int
    methods: tuple[str, ...]
    models: tuple[str, ...]
    sets: tuple[str, ...]
    settings: rounds.Settings
    timeout_s: float
    out: Path
    tensorboard: Path

    @property
    def command(self) -> str:
        """The command line."""
        s = self.settings
        changes = "".join(f" --set {name}={value}" for name, value in self.changes.items())
        return (
            f"semcom-gym rounds --devices {self.devices} --rounds {s.rounds} --method {' '.join(self.methods)} "
            f"--models {' '.join(self.models)} --preset {self.preset}{changes} --seed {s.seed} --optimizer "
            f"{s.optimizer} --learning-rate {s.learning_rate:g} --width {s.width} --side {s.side} --every {s.every} "
            f"--images {profile_common.names(self.sets)}"
        )


def params(preset: str, devices: int, changes: dict[str, Any]) -> Any:
    """Parameters of the cell. Raises ValueError or TypeError for an unknown preset or a bad value."""
    problem = envs.problem(PROBLEM)
    validate.integer("--devices", devices)
    if "num_users" in changes:
        raise ValueError("the number of devices is set by --devices, not by --set num_users")
    validate.keywords("--set", changes, [field.name for field in dataclasses.fields(problem.Params)])
    return dataclasses.replace(problem.preset(preset), num_users=devices, **changes)


def cell(found: Any, method: str, seed: int) -> Cell:
    """The cell of a seed under a method's allocation. Raises ValueError in one line if that is not feasible.

    A device sends as many feature maps as fit into its share, floor(96 rho), one at least.
    """
    problem = envs.problem(PROBLEM)
    instance = problem.sample(found, np.random.default_rng(seed), 1)
    solution = baselines.solve(PROBLEM, found, instance, method)
    if not solution.feasible[0]:
        raise ValueError(
            f"method {method!r} has no feasible allocation for the cell of seed {seed}: {solution.status[0]}"
        )
    terms = {name: value[0] for name, value in problem.evaluate(found, instance, solution.allocation).terms.items()}
    links = tuple(
        distributed.Link(maps_that_fit(float(share)), 10.0 * math.log10(snr))
        for share, snr in zip(terms["ratio"], terms["snr"], strict=True)
    )
    return Cell(
        method=method,
        links=links,
        ratio=tuple(terms["ratio"].tolist()),
        min_psnr_db=tuple(instance.min_psnr_db[0].tolist()),
        promised_psnr_db=tuple(terms["psnr_db"].tolist()),
        time_s=float(terms["time_s"].max()),
        energy_j=float(terms["energy_j"].sum()),
    )


def maps_that_fit(share: float) -> int:
    """Feature maps that a share of the data holds; one at least."""
    return max(1, math.floor(MAPS_PER_RATIO * share + 1e-6))  # solvers meet limits to 1e-9


def run(plan: Plan) -> dict[str, Any]:
    """Train under every method and kind of models, or go on; write the table, the picture and the report."""
    found = params(plan.preset, plan.devices, plan.changes)
    cells = [cell(found, method, plan.settings.seed) for method in plan.methods]
    report: dict[str, Any] = {"runs": [], "provenance": {}}
    for place in cells:
        for models in plan.models:
            trained = _train(plan, place, models)
            report["runs"].append(_result(place, models, trained))
    report["provenance"] = _provenance(plan, found, trained)
    paths = [plan.out / name for name in ("rounds.csv", "rounds.png", "rounds.json")]
    report["files"] = [path.name for path in paths] + _curves(report, plan)
    store.write_atomically(paths[0], table(report["runs"]))
    _picture(report["runs"], paths[1])
    store.write_atomically(paths[2], store.dumps(report, indent=1) + "\n")
    return report


def _curves(report: dict[str, Any], plan: Plan) -> list[str]:
    """Write the learning curve of every kind of models that was followed long enough; the files' names."""
    if plan.settings.rounds < 3 * plan.settings.every:
        return []
    curves = [rounds_curve.fit(report, models) for models in plan.models]
    for curve in curves:
        curve.save(plan.out / f"{curve.name}.json")
    return [f"{curve.name}.json" for curve in curves]


def name_of(method: str, models: str) -> str:
    """What the files of a run are called."""
    return f"{method}_{models}"


def kept(plan: Plan) -> str:
    """One line on what an interruption leaves."""
    names = [name_of(method, models) for method in plan.methods for models in plan.models]
    if not any((plan.out / f"{name}.pt").exists() for name in names):
        return "there was no checkpoint yet"
    return f"finished rounds are kept in {plan.out}; the same command goes on from there"


def table(runs: list[dict[str, Any]]) -> str:
    """The learning curves as CSV: a line for every run, measured round and device; loss is empty at round 0."""
    lines = [",".join(COLUMNS)]
    for item in runs:
        for row in item["rows"]:
            for n, link in enumerate(item["devices"]):
                loss = "" if row["loss"] is None else f"{row['loss'][n]:.6g}"
                lines.append(
                    f"{item['method']},{item['models']},{row['round']},{row['round'] * item['time_s']:.6g},"
                    f"{row['round'] * item['energy_j']:.6g},{n},{link['ratio']:.6g},{link['maps']},"
                    f"{link['snr_db']:.4f},{loss},{row['psnr_db'][n]:.4f},{row['anchor_db'][n]:.4f}"
                )
    return "\n".join(lines) + "\n"


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    anchor = f"rho = {ratio(measure.ANCHOR[0]):.3f} and {measure.ANCHOR[1]:g} dB"
    lines = []
    for item in report["runs"]:
        last = item["rows"][-1]
        number, links, there = last["round"], np.mean(last["psnr_db"]), np.mean(last["anchor_db"])
        lines.append(
            f"{item['method']}, {item['models']} models: {number} rounds in {item['seconds']:.0f} s; in the cell "
            f"{number * item['time_s']:.4g} s and {number * item['energy_j']:.4g} J; PSNR on the links {links:.2f} dB, "
            f"at {anchor} {there:.2f} dB"
        )
        for n, (device, psnr) in enumerate(zip(item["devices"], last["psnr_db"], strict=True)):
            lines.append(
                f"  device {n}: rho {device['ratio']:.3f}, {device['maps']} maps, SNR {device['snr_db']:.1f} dB: "
                f"PSNR {psnr:.2f} dB; (57) promises {device['promised_psnr_db']:.2f}, asked for are "
                f"{device['min_psnr_db']:.2f}"
            )
    return "\n".join([*lines, f"written: {', '.join(report['files'])}"])


def _train(plan: Plan, place: Cell, models: str) -> rounds.Trained:
    name = name_of(place.method, models)
    return rounds.train(
        plan.sets, place.links, dataclasses.replace(plan.settings, models=models), path=plan.out / f"{name}.pt",
        cost={"time_s": place.time_s, "energy_j": place.energy_j}, timeout_s=plan.timeout_s,
        tensorboard=plan.tensorboard / name,
    )  # fmt: skip


def _result(place: Cell, models: str, trained: rounds.Trained) -> dict[str, Any]:
    """A run as the report has it: what a round costs, sends and leads to."""
    identity = trained.identity
    pixels = identity["side"] ** 2
    return {
        "method": place.method,
        "models": models,
        "time_s": place.time_s,
        "energy_j": place.energy_j,
        "seconds": round(trained.record["seconds"], 1),
        "devices": [
            {
                "ratio": place.ratio[n],
                "maps": link.maps,
                "snr_db": link.snr_db,
                "min_psnr_db": place.min_psnr_db[n],
                "promised_psnr_db": place.promised_psnr_db[n],
                "symbols_up": link.maps * pixels // 32 * identity["batch"],
            }
            for n, link in enumerate(place.links)
        ],
        "encoder_bit_down": WEIGHT_BIT * distributed.flat(trained.networks[0].encoder).numel(),
        "weights_sha256": [checkpoint.weights_hash(network.state_dict()) for network in trained.networks],
        "rows": trained.record["rows"],
    }


def _provenance(plan: Plan, found: Any, trained: rounds.Trained) -> dict[str, Any]:
    identity = {name: value for name, value in trained.identity.items() if name not in ("links", "models")}
    return {
        "command": plan.command,
        "params": dataclasses.asdict(found),
        "training": identity,
        "data_set": trained.sources,
        "validation_crops": rounds.FOLLOWED,
        "versions": profile_common.versions(),
        "code": store.code_version(*CODE),
        "time_and_energy": "of the cell, by (5)-(15), for samples of sample_bit; not of the processes that ran",
        "psnr": "mean over crops of the PSNR in dB",
    }


def _picture(runs: list[dict[str, Any]], path: Path) -> None:
    """PSNR on the devices' links, mean over devices, against rounds, time and energy; a line for each run."""
    figure, panels = pictures.grid(12.0, 3.8, 1, 3)
    methods = list(dict.fromkeys(item["method"] for item in runs))
    for item in runs:
        number = np.array([row["round"] for row in item["rows"]], float)
        psnr = [float(np.mean(row["psnr_db"])) for row in item["rows"]]
        colour = pictures.COLOURS[methods.index(item["method"]) % len(pictures.COLOURS)]
        style = {"own": "-", "shared": "--"}[item["models"]]
        for axes, scale in zip(panels, (1.0, item["time_s"], item["energy_j"]), strict=True):
            axes.plot(scale * number, psnr, style, color=colour, label=f"{item['method']}, {item['models']}")
    for axes, label in zip(panels, ("rounds", "time in the cell [s]", "energy in the cell [J]"), strict=True):
        axes.set(xlabel=label)
    panels[0].set_ylabel("PSNR [dB], mean of the devices' links")
    panels[0].legend(frameon=False)
    pictures.save(figure, path)
