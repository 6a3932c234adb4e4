"""``semcom-gym rounds``: the iterative training of a cell's devices under solvers' allocations."""

from __future__ import annotations

import argparse
from typing import Any

from semcom_gym import baselines
from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.commands import Job, add, log_folder, logged, overrides, parse_overrides
from semcom_gym.benchmarks.errors import UserError, user_input
from semcom_gym.envs import validate


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = add(
        commands, "rounds", _rounds,
        "train deep JSCC between a base station and its devices, round by round, in processes",
        "  semcom-gym rounds --devices 4 --rounds 500 --method fast equal_bandwidth --out runs/rounds\n\n"
        "Ctrl-C keeps the rounds so far: the same command goes on from there.",
    )  # fmt: skip
    parser.add_argument(
        "--devices", type=int, default=4, help="devices in the cell, a process each (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=500, help="rounds of Algorithm 1 (default: %(default)s)")
    parser.add_argument(
        "--method", nargs="+", default=["fast"],
        help="solvers whose allocations set ratio and SNR of the devices, and time and energy (default: fast)",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", default=["own"], help="own (one network per device), shared (default: own)"
    )
    parser.add_argument("--preset", default="default", help="of SemCom/Training-v0 (default: %(default)s)")
    overrides(parser)
    parser.add_argument("--seed", type=int, default=0, help="decides the cell and all else (default: %(default)s)")
    parser.add_argument("--optimizer", default="adam", help="adam, or sgd as printed (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, help="of the optimiser (default: adam 0.001, sgd 1)")
    parser.add_argument("--width", type=int, default=32, help="of the networks (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="of the crops, in pixels (default: %(default)s)")
    parser.add_argument("--every", type=int, default=20, help="rounds between measurements (default: %(default)s)")
    parser.add_argument(
        "--images", nargs="+", default=["photos"], metavar="SET",
        help="sets of images by name, or folders of images (default: photos)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="longest wait for a device [s] (default: %(default)s)"
    )
    parser.add_argument("--out", default="runs/rounds", help="folder of results (default: %(default)s)")
    logged(parser)


def _rounds(args: argparse.Namespace) -> Job:
    for module in ("torch", "tqdm", "matplotlib", "tensorboard"):
        baselines.solution.require(module, "rounds")
    from semcom_gym.benchmarks import rounds
    from semcom_gym.transceivers.deepjscc import rounds as iterative

    changes = parse_overrides(args.overrides)
    found = rounds.params(args.preset, args.devices, changes)
    for method in args.method:
        validate.choice("training method", method, baselines.methods(rounds.PROBLEM))
    for models in args.models:
        validate.choice("models", models, iterative.MODELS)
    settings = iterative.Settings(
        args.rounds, found.samples, args.models[0], args.optimizer, args.learning_rate, args.width,
        rounds.maps_that_fit(found.max_ratio), args.side, every=args.every, seed=args.seed,
    )  # fmt: skip
    validate.number("--timeout", args.timeout)
    out = store.make_folder(args.out)
    plan = rounds.Plan(
        args.preset, changes, args.devices, tuple(dict.fromkeys(args.method)), tuple(dict.fromkeys(args.models)),
        tuple(args.images), settings, args.timeout, out, log_folder(args.tensorboard, out),
    )  # fmt: skip
    return Job(lambda: _run(plan), rounds.show, lambda: rounds.kept(plan))


def _run(plan: Any) -> dict[str, Any]:
    from semcom_gym.benchmarks import rounds
    from semcom_gym.transceivers.deepjscc.distributed import DeviceLostError

    try:
        with user_input():  # sets may be missing, an allocation infeasible, the folder's checkpoints another's
            return rounds.run(plan)
    except DeviceLostError as error:
        raise UserError(f"{error}; {rounds.kept(plan)}") from error
