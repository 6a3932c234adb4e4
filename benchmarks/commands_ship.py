"""``semcom-gym ship``: put the best of several training runs among the agents that come with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semcom_gym import envs
from semcom_gym.benchmarks import protocol, store
from semcom_gym.benchmarks.commands import Job, add
from semcom_gym.envs import validate

KIND = ("env_id", "preset", "algo")  # of an agent, with the parameters that it was trained to vary, if any


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    ship = add(
        commands, "ship", _ship, "put a trained agent, with its card, among those that come with the package",
        "  semcom-gym ship runs/CRRA-v0_default_apg_seed0 runs/CRRA-v0_default_apg_seed1\n\n"
        "Of several seeds the one best on the validation split is taken; only that one meets the test split here.",
    )  # fmt: skip
    ship.add_argument("runs", nargs="+", metavar="FOLDER", help="finished training runs of one agent, one per seed")
    ship.add_argument(
        "-n", "--instances", type=int,
        help="test instances for the card, or episodes of a fading id (default: 200 instances, 100 episodes)",
    )  # fmt: skip
    ship.add_argument(
        "--scored", type=int,
        help="of a fading id: blocks, in whole episodes, with a proven bound for score and gap (default: all)",
    )  # fmt: skip
    ship.add_argument("--cells", default="results/cells", help="folder of finished work (default: %(default)s)")


def _ship(args: argparse.Namespace) -> Job:
    from semcom_gym.agents import store as agent_store  # says which package is missing
    from semcom_gym.benchmarks import competitors

    records = {folder: agent_store.read_json(Path(folder) / "run.json", "training run") for folder in args.runs}
    kinds = {(*(str(record[name]) for name in KIND), str(record.get("vary") or "")) for record in records.values()}
    if len(kinds) > 1:
        raise ValueError(f"the runs are of different agents: {', '.join(' '.join(kind) for kind in sorted(kinds))}")
    for folder, record in records.items():
        if not record["finished"]:
            raise ValueError(f"the training run in {folder!r} is not finished; train with --resume first")
    chosen = max(records, key=lambda folder: records[folder]["best"]["reward"])
    record = records[chosen]
    if args.instances is not None:
        validate.integer("--instances", args.instances)
    if record["env_id"] in envs.FADING_IDS:
        if args.scored is not None:
            validate.integer("--scored", args.scored)
        return Job(lambda: _run_ship_fading(record, chosen, args.instances or 100, args.scored), _show_fading)
    if args.scored is not None:
        raise ValueError("--scored is for fading ids; all instances of the others are scored")
    task = protocol.task(record["env_id"], record["preset"], n=args.instances or 200, **record["overrides"])
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


def _run_ship_fading(record: dict[str, Any], chosen: str, n: int, scored: int | None) -> dict[str, Any]:
    from semcom_gym import agents
    from semcom_gym.agents import fading

    model = agents.ALGORITHMS[record["algo"]][0].load(Path(chosen) / "model.zip", device="cpu")
    env = agents.make_vec_env(record["env_id"], 1, preset=record["preset"], **record["overrides"]).venv.unwrapped
    scores = fading.scores_on_test(model, env, n, scored)
    return {"run": chosen, "file": str(agents.ship(chosen, {"test": scores})), "test": scores}


def _show_fading(found: dict[str, Any]) -> str:
    test = found["test"]
    return (
        f"{found['run']}: mean reward of a block {test['reward']:.4f}, feasible {100 * test['feasible']:.1f} % on "
        f"{test['n']} test episodes, {100 * test['gap']:.2f} % below the genie on {test['proven']} of them\n"
        f"written: {found['file']}"
    )


def _show(found: dict[str, Any]) -> str:
    test = found["test"]
    return (
        f"{found['run']}: mean score {test['mean_score']:.4f}, loss {100 * test['loss']:.3f} %, feasible "
        f"{100 * test['feasible']:.0f} % on {test['n']} test instances\nwritten: {found['file']}"
    )
