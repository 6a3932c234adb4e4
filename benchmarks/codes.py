"""The table of block error rates: what is simulated, kept and written."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from semcom_gym.benchmarks import progress, store
from semcom_gym.transceivers.coding import ldpc, simulate
from semcom_gym.transceivers.coding.schemes import BLOCK, SCHEMES, Scheme

STEP_DB = 0.25
START_DB = 0.5
"""Above Shannon's limit for the efficiency of a scheme: where its points start."""
ENOUGH = 0.01
"""The points of a scheme end at the first block error rate of no more than this."""
TOP = 40  # points of a scheme at most


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked for. errors, blocks: where the simulation of a point ends. schemes: by their index."""

    out: Path
    errors: int = 100
    blocks: int = 1000
    seed: int = 0
    schemes: tuple[int, ...] = tuple(scheme.index for scheme in SCHEMES)

    @property
    def command(self) -> str:
        """The command line."""
        return f"semcom-gym codes --errors {self.errors} --blocks {self.blocks} --seed {self.seed}"

    def kept(self) -> str:
        """One line on what an interruption leaves."""
        return f"finished points are kept in {self.out}; the same command goes on from there"


def simulated(plan: Plan) -> dict[str, Any]:
    """Simulate every point that is not there yet, write the table and return it."""
    cells, rows = store.Store(plan.out / "cells"), {}
    with progress.bar(len(plan.schemes), "block error rates") as bar:
        for scheme in SCHEMES:
            if scheme.index in plan.schemes:
                rows[str(scheme.index)] = _waterfall(plan, cells, scheme)
                bar.update()
    table = {
        "block": BLOCK,
        "schemes": rows,
        "provenance": {
            "code": "5G LDPC of Sionna; layered sum-product decoder",
            "channel": "white noise; exact likelihoods of bits",
            "seed": plan.seed, "command": plan.command, **_settings(plan),
        },
    }  # fmt: skip
    path = plan.out / ldpc.FILE
    store.write_atomically(path, store.dumps(table, indent=1) + "\n")
    return table | {"files": [str(path)]}


def show(table: dict[str, Any]) -> str:
    """Where each scheme reaches a block error rate of 10 % and of 1 %, as text."""
    [path] = table["files"]
    found = ldpc.load(path)
    lines = ["CQI  scheme            bit/symbol  10 % at [dB]  1 % at [dB]"]
    for scheme in found.schemes:
        levels = [found.snr_db(scheme, rate) for rate in (0.1, 0.01)]
        lines.append(f"{scheme.index:3}  {scheme.name:16}  {scheme.efficiency:10.3f}  {levels[0]:12.2f}  "
                     f"{levels[1]:11.2f}")  # fmt: skip
    return "\n".join([*lines, f"written: {path}"])


def _settings(plan: Plan) -> dict[str, Any]:
    return {
        "errors": plan.errors, "blocks": plan.blocks, "iterations": simulate.ITERATIONS, **simulate.versions(),
    }  # fmt: skip


def _waterfall(plan: Plan, cells: store.Store, scheme: Scheme) -> dict[str, list[Any]]:
    """The points of one scheme, from where next to nothing arrives to where next to all does."""
    limit_db = 10.0 * math.log10(2.0**scheme.efficiency - 1.0)
    first = math.ceil((limit_db + START_DB) / STEP_DB)
    link, found = simulate.Link(scheme), []
    for place in range(first, first + TOP):
        snr_db = STEP_DB * place
        key = {"order": scheme.order, "rate": scheme.rate, "block": BLOCK, "snr_db": snr_db, "seed": plan.seed}

        def compute(snr_db: float = snr_db) -> dict[str, Any]:
            limits = {"errors": plan.errors, "blocks": plan.blocks}
            return dataclasses.asdict(simulate.count(link, snr_db, _seed(plan.seed, scheme, snr_db), **limits))

        point = cells.cell(f"scheme_{scheme.index}_{snr_db:g}dB", key | _settings(plan), compute)
        found.append({"snr_db": snr_db, **point})
        if point["errors"] <= ENOUGH * point["blocks"]:
            break
    return {name: [point[name] for point in found] for name in ("snr_db", "blocks", "errors")}


def _seed(seed: int, scheme: Scheme, snr_db: float) -> int:
    """A seed of its own for every point."""
    return (seed * 1_000_003 + scheme.index) * 10_007 + round((snr_db + 100.0) / STEP_DB)
