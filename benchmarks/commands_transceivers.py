"""``semcom-gym data`` and ``profile``: images for the transceivers, and the curves measured with them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from semcom_gym import baselines
from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.commands import Job, add
from semcom_gym.benchmarks.errors import user_input
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import usable_device

NETWORKS = ("deepjscc",)


def add_to(commands: Any) -> None:
    """Add the two subcommands."""
    images = add(
        commands, "data", _data, "fetch images for the transceivers, or list those that are there",
        "  semcom-gym data fetch photos\n\n"
        "Packages are downloaded and unpacked without root, into $SEMCOM_GYM_DATA or ~/.cache/semcom-gym.",
    )  # fmt: skip
    images.add_argument("action", help="fetch or list")
    images.add_argument("sets", nargs="*", metavar="SET", help="of fetch: names of sets (default: all it can fetch)")
    profile = add(
        commands, "profile", _profile, "train a transceiver, measure it and fit the curve that the environments read",
        "  semcom-gym profile deepjscc --device cpu --size small --out runs/deepjscc\n\n"
        "Ctrl-C keeps the network so far and every finished measurement: the same command goes on from there.",
    )  # fmt: skip
    profile.add_argument("network", help=f"one of: {', '.join(NETWORKS)}")
    profile.add_argument("--device", default="cpu", help="cpu, cuda (default: %(default)s)")
    profile.add_argument("--size", default="small", help="small (for a CPU) or full (for a GPU) (default: %(default)s)")
    profile.add_argument("--crops", type=int, help="crops to train on, repeats counted (default: those of the size)")
    profile.add_argument(
        "--images", nargs="+", default=["photos"], metavar="SET",
        help="sets of images by name, or folders of images (default: photos)",
    )  # fmt: skip
    profile.add_argument("--seed", type=int, default=0, help="decides everything (default: %(default)s)")
    profile.add_argument("--out", help="folder of results (default: runs/profile_NETWORK_SIZE)")
    profile.add_argument("--tensorboard", metavar="FOLDER", help="where the log goes (default: OUT/tensorboard)")


# --- data ----------------------------------------------------------------------------------------------------------


def _data(args: argparse.Namespace) -> Job:
    from semcom_gym.transceivers import data
    from semcom_gym.transceivers.data.fetch import check

    validate.choice("action", args.action, ("fetch", "list"))
    if args.action == "list":
        if args.sets:
            raise ValueError(f"data list takes no names, got {' '.join(args.sets)}")
        return Job(lambda: {"sets": data.table()}, lambda found: data.describe(found["sets"]))
    names = args.sets or list(data.FETCHED)
    check(names)
    return Job(
        lambda: _fetch(names),
        lambda found: data.describe(found["sets"]),
        lambda: "packages that were unpacked are kept; the same command goes on from there",
    )


def _fetch(names: list[str]) -> dict[str, Any]:
    from semcom_gym.transceivers import data

    with user_input():
        return {"sets": data.fetch(names, lambda line: print(line, file=sys.stderr))}


# --- profile -------------------------------------------------------------------------------------------------------


def _profile(args: argparse.Namespace) -> Job:
    validate.choice("network", args.network, NETWORKS)
    for module in ("torch", "tqdm", "matplotlib", "tensorboard"):
        baselines.solution.require(module, "profile")
    from semcom_gym.benchmarks import profiles
    from semcom_gym.transceivers.deepjscc import training

    validate.choice("size", args.size, training.SIZES)
    validate.integer("seed", args.seed, low=0)
    usable_device(args.device)
    size = training.SIZES[args.size]
    if args.crops is not None:
        size = dataclasses.replace(size, crops=args.crops)
    out = store.make_folder(args.out or f"runs/profile_{args.network}_{args.size}")
    log = Path(args.tensorboard) if args.tensorboard else out / "tensorboard"
    profile = profiles.Profile(tuple(args.images), args.size, size, args.device, args.seed, out, log)
    return Job(lambda: _run_profile(profile), profiles.show, lambda: profiles.kept(profile))


def _run_profile(profile: Any) -> dict[str, Any]:
    from semcom_gym.benchmarks import profiles

    with user_input():  # sets may be missing, the folder's checkpoint another's
        return profiles.deepjscc(profile)
