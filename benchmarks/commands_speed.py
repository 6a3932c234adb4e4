"""``semcom-gym speed``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import protocol, summary
from semcom_gym.benchmarks.commands import Job, add
from semcom_gym.envs import validate

GROUPS = ("scalar", "vector", "solver", "agent", "limits", "hotspots")
HOTSPOT_SECONDS = 2.0
STEPWISE = "SemCom/SFMAPairing-v0"  # the published algorithm is that of the id that decides at once
PAPER_METHODS = (
    *((env_id, None, method) for env_id, method in summary.PUBLISHED.items() if env_id != STEPWISE),
    ("SemCom/ASCC-v0", "two_user", "jrpb"), ("SemCom/Training-v0", "paper", "paper"),
)  # fmt: skip
"""Id, preset (None: its own) and published algorithm that the solvers' speed is measured on."""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    speed = add(
        commands, "speed", _speed, "measure environments beside CartPole, and solvers",
        "  semcom-gym speed --out docs/results/speed.json",
    )  # fmt: skip
    speed.add_argument("--repeats", type=int, default=5, help="measurements per row (default: %(default)s)")
    speed.add_argument("--seconds", type=float, default=0.4, help="length of one measurement (default: %(default)s)")
    speed.add_argument("--device", default="cpu", help="where the torch rows run: cpu, cuda (default: %(default)s)")
    speed.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    speed.add_argument("--only", nargs="+", metavar="GROUP", help=f"{', '.join(GROUPS)} (default: all)")
    speed.add_argument(
        "--batches",
        nargs="+",
        type=int,
        default=[1, 64, 256, 1024, 4096],
        metavar="N",
        help="sizes of the vector environments (default: %(default)s)",
    )
    speed.add_argument("--out", help="also write the result to this JSON file")


def _speed(args: argparse.Namespace) -> Job:
    from semcom_gym.benchmarks import speed, speed_rows

    for name in ("repeats", "threads"):
        validate.integer(f"--{name}", getattr(args, name))
    validate.number("--seconds", args.seconds)
    groups = args.only or GROUPS
    for group in groups:
        validate.choice("group", group, GROUPS)
    for batch in args.batches:
        validate.integer("--batches", batch)
    extra = {"solver": "cvxpy", "hotspots": "cvxpy", "agent": "stable_baselines3"}
    for module in ("tqdm", "torch", *(extra[group] for group in groups if group in extra)):
        baselines.solution.require(module, "speed")
    import torch

    torch.set_num_threads(args.threads)
    protocol.make_vector(next(iter(envs.IDS)), 1, backend="torch", device=args.device)
    return Job(lambda: _run_speed(speed, speed_rows, args, groups), speed.text)


def _run_speed(speed: Any, rows: Any, args: argparse.Namespace, groups: Any) -> dict[str, Any]:
    from semcom_gym.benchmarks import hotspots, limits

    wanted = PAPER_METHODS if {"solver", "hotspots"} & set(groups) else ()
    solvers = [row for case in wanted for row in rows.solver_items(*case, args.device)]
    makers = {
        "scalar": lambda: [*rows.scalar_items(), *rows.other_items()],
        "vector": lambda: rows.vector_items(args.batches, args.device),
        "solver": lambda: solvers,
        "agent": lambda: [row for env_id in envs.IDS for row in rows.agent_items(env_id, args.device)],
    }
    items = [item for group in groups if group in makers for item in makers[group]()]
    measured = speed.measure(items, args.repeats, args.seconds)
    found = {"machine": speed.machine(args.threads), "repeats": args.repeats, "seconds": args.seconds, "rows": measured}
    if "limits" in groups:
        found["limits"] = limits.table_of(list(envs.IDS))
    if "hotspots" in groups:
        ours = [item for item in solvers if item.name.startswith(("fast, ", "bound, "))]
        found["hotspots"] = hotspots.table_of(ours, HOTSPOT_SECONDS)
    if args.out:
        speed.write(found, Path(args.out))
    return found
