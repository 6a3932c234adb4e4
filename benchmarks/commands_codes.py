"""``semcom-gym codes``: the table of block error rates that the digital chain reads."""

from __future__ import annotations

import argparse
from typing import Any

from semcom_gym import baselines
from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.commands import Job, add
from semcom_gym.envs import validate


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = add(
        commands, "codes", _codes, "simulate the block error rates of 5G's codes and modulations",
        "  semcom-gym codes --out runs/codes\n\n"
        "Ctrl-C keeps every finished point: the same command goes on from there.",
    )  # fmt: skip
    parser.add_argument("--schemes", nargs="+", type=int, metavar="CQI", help="by their index (default: all 15)")
    parser.add_argument("--errors", type=int, default=100, help="a point ends with these (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=1000, help="or with these (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    parser.add_argument("--out", default="runs/codes", help="folder of results (default: %(default)s)")


def _codes(args: argparse.Namespace) -> Job:
    for module in ("torch", "tqdm"):
        baselines.solution.require(module, "codes")
    import torch

    from semcom_gym.benchmarks import codes
    from semcom_gym.transceivers.coding import simulate
    from semcom_gym.transceivers.coding.schemes import SCHEMES

    simulate.versions()  # one line where Sionna is missing
    every = tuple(scheme.index for scheme in SCHEMES)
    for index in args.schemes or ():
        validate.choice("scheme", index, every)
    for name in ("errors", "blocks", "threads"):
        validate.integer(name, getattr(args, name))
    validate.integer("seed", args.seed, low=0)
    torch.set_num_threads(args.threads)
    schemes = tuple(index for index in every if index in (args.schemes or every))
    plan = codes.Plan(store.make_folder(args.out), args.errors, args.blocks, args.seed, schemes)
    return Job(lambda: codes.simulated(plan), codes.show, plan.kept)
