"""``semcom-gym ship``: put the best of several training runs among the agents that come with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semcom_gym.benchmarks import protocol, store
from semcom_gym.benchmarks.commands import Job, add


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    ship = add(
        commands, "ship", _ship, "put a trained agent, with its card, among those that come with the package",
        "  semcom-gym ship runs/CRRA-v0_default_apg_seed0 runs/CRRA-v0_default_apg_seed1\n\n"
        "Of several seeds the one best on the validation split is taken; only that one meets the test split here.",
    )  # fmt: skip
    ship.add_argument("runs", nargs="+", metavar="FOLDER", help="finished training runs of one agent, one per seed")
    ship.add_argument("-n", "--instances", type=int, default=200, help="test instances for the card (default: 200)")
    ship.add_argument("--cells", default="results/cells", help="folder of finished work (default: %(default)s)")


def _ship(args: argparse.Namespace) -> Job:
    from semcom_gym.agents import store as agent_store  # says which package is missing
    from semcom_gym.benchmarks import competitors

    records = {folder: agent_store.read_json(Path(folder) / "run.json", "training run") for folder in args.runs}
    kinds = {tuple(record[name] for name in ("env_id", "preset", "algo")) for record in records.values()}
    if len(kinds) > 1:
        raise ValueError(f"the runs are of different agents: {', '.join(' '.join(kind) for kind in sorted(kinds))}")
    for folder, record in records.items():
        if not record["finished"]:
            raise ValueError(f"the training run in {folder!r} is not finished; train with --resume first")
    chosen = max(records, key=lambda folder: records[folder]["best"]["reward"])
    record = records[chosen]
    task = protocol.task(record["env_id"], record["preset"], n=args.instances, **record["overrides"])
    competitor = competitors.agent(task, chosen)
    cells = store.Store(args.cells)
    return Job(lambda: _run_ship(task, competitor, chosen, cells), _show, cells.kept)


def _run_ship(task: protocol.Task, competitor: Any, chosen: str, cells: store.Store) -> dict[str, Any]:
    from semcom_gym import agents
    from semcom_gym.benchmarks.leaderboard import leaderboard

    row = leaderboard(task, [competitor], cells, single=0).rows[0]
    scores = {"mean_score": row.mean_score.value, "loss": row.loss, "feasible": row.feasible, "n": len(task.instance)}
    file = agents.ship(chosen, {"test": scores})
    return {"run": chosen, "file": str(file), "test": scores}


def _show(found: dict[str, Any]) -> str:
    test = found["test"]
    return (
        f"{found['run']}: mean score {test['mean_score']:.4f}, loss {100 * test['loss']:.3f} %, feasible "
        f"{100 * test['feasible']:.0f} % on {test['n']} test instances\nwritten: {found['file']}"
    )
