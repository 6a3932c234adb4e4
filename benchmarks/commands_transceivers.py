"""``semcom-gym data`` and ``profile``: images for the transceivers, and the curves measured with them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from semcom_gym import baselines
from semcom_gym.benchmarks import machines, store
from semcom_gym.benchmarks.commands import Job, add, log_folder, logged, workers
from semcom_gym.benchmarks.errors import user_input
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import usable_device

NETWORKS = ("deepjscc", "classifier", "ascc", "sfma", "digital")
OWN = {
    "deepjscc": ("tested", "example", "specialist"), "classifier": ("backbone",), "ascc": ("labelled", "analog"),
    "sfma": ("scheme", "shown", "digital"),
}  # fmt: skip
"""Options of `profile` that belong to one network."""


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
        "  semcom-gym profile deepjscc --device cpu --size small --out runs/deepjscc\n"
        "  semcom-gym profile classifier --backbone vgg --device cpu --size small --out runs/vgg\n"
        "  semcom-gym profile ascc --device cpu --size small --out runs/ascc\n"
        "  semcom-gym profile sfma --scheme sc_sfma swinjscc_noma --device cpu --size small --out runs/sfma\n\n"
        "Ctrl-C keeps the network so far and every finished measurement: the same command goes on from there.",
    )  # fmt: skip
    profile.add_argument("network", help=f"one of: {', '.join(NETWORKS)}")
    profile.add_argument("--device", default="cpu", help="cpu, cuda (default: %(default)s)")
    profile.add_argument("--size", default="small", help="small (for a CPU) or full (for a GPU) (default: %(default)s)")
    profile.add_argument(
        "--train-images", type=int, metavar="N",
        help="images to train on (deepjscc, ascc: crops, sfma: pairs), repeats counted (default: those of the size)",
    )  # fmt: skip
    profile.add_argument(
        "--images", nargs="+", metavar="SET",
        help="sets of images by name, or folders of images; one, with classes, for the classifier "
        "(default: photos, for the classifier stamps)",
    )  # fmt: skip
    profile.add_argument("--backbone", help="of the classifier: resnet or vgg (default: resnet)")
    profile.add_argument(
        "--tested", nargs="+", default=[], metavar="SET",
        help="sets held out, measured one by one; the curve is that of the first (default: those of --images)",
    )  # fmt: skip
    profile.add_argument("--example", metavar="PICTURE", help="a picture to send by deep JSCC and by JPEG, and to draw")
    profile.add_argument("--labelled", metavar="SET", help="of ascc: images of the semantic user (default: stamps)")
    profile.add_argument(
        "--analog", metavar="FILE", help="of ascc: a network of deep JSCC to measure beside the codecs"
    )
    profile.add_argument("--scheme", nargs="+", metavar="SCHEME", help="of sfma: what to train (default: all four)")
    profile.add_argument("--shown", nargs=2, metavar="PICTURE", help="of sfma: two pictures to send and to draw")
    profile.add_argument("--digital", metavar="CSV", help="of sfma: PSNR of a digital chain over SNR, to be drawn too")
    profile.add_argument(
        "--specialist", nargs=2, action="append", default=[], metavar=("MAPS", "SNR_DB"),
        help="train a network for this point alone and compare it with that in OUT; may be repeated",
    )  # fmt: skip
    profile.add_argument("--seed", type=int, default=0, help="decides everything (default: %(default)s)")
    profile.add_argument("--out", help="folder of results (default: runs/profile_NETWORK_SIZE)")
    logged(profile)
    workers(profile)


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
    for network, names in OWN.items():
        for name in names:
            if network != args.network and getattr(args, name):
                raise ValueError(f"--{name} is an option of {network}, not of {args.network}")
    validate.integer("seed", args.seed, low=0)
    usable_device(args.device)
    if (args.network == "classifier" or args.specialist) and (args.jobs, args.backend) != (None, None):
        what = "--specialist, which trains" if args.specialist else "classifier, whose measurements build on each other"
        raise ValueError(f"--jobs and --backend are no options of {what}")
    made = {"deepjscc": _deepjscc, "classifier": _classifier, "ascc": _ascc, "sfma": _sfma, "digital": _digital}
    return made[args.network](args)


def _classifier(args: argparse.Namespace) -> Job:
    from semcom_gym.benchmarks import profile_classifier
    from semcom_gym.transceivers.classifier import training
    from semcom_gym.transceivers.classifier.network import BACKBONES

    sets, backbone = args.images or ["stamps"], args.backbone or "resnet"
    validate.choice("backbone", backbone, BACKBONES)
    if len(sets) > 1:
        raise ValueError(f"the classifier takes one set of images, got {' '.join(sets)}")
    asked = _asked(args, sets, training.SIZES, "images", f"_{backbone}")
    profile = profile_classifier.Profile(**asked, backbone=backbone)
    return Job(lambda: _checked(partial(profile_classifier.classifier, profile)), profile_classifier.show, profile.kept)


def _deepjscc(args: argparse.Namespace) -> Job:
    from semcom_gym.benchmarks import profile_specialists, profiles
    from semcom_gym.transceivers.deepjscc import training

    asked = _asked(args, args.images or ["photos"], training.SIZES, "crops")
    example = Path(args.example) if args.example else None
    profile = profiles.Profile(**asked, tested=tuple(args.tested), example=example)
    if args.specialist:
        points = [_point(*pair) for pair in args.specialist]
        profile_specialists.check(points, profile)
        work, show = partial(profile_specialists.specialists, profile, points), profile_specialists.show
    else:
        work, show = partial(profiles.deepjscc, profile), profiles.show
    return Job(lambda: _checked(work), show, profile.kept)


def _ascc(args: argparse.Namespace) -> Job:
    for module in ("constriction", "av"):
        baselines.solution.require(module, "profile ascc")
    from semcom_gym.benchmarks import profile_ascc

    codecs = {name: size.codec for name, size in profile_ascc.SIZES.items()}
    asked = _asked(args, args.images or ["photos"], codecs, "crops")
    asked["size"] = dataclasses.replace(profile_ascc.SIZES[args.size], codec=asked["size"])
    analog = Path(args.analog) if args.analog else None
    profile = profile_ascc.Profile(**asked, labelled=args.labelled or "stamps", analog=analog)
    return Job(lambda: _checked(partial(profile_ascc.ascc, profile)), profile_ascc.show, profile.kept)


def _sfma(args: argparse.Namespace) -> Job:
    from semcom_gym.benchmarks import profile_sfma
    from semcom_gym.transceivers.sfma import training
    from semcom_gym.transceivers.sfma.network import SCHEMES

    schemes = tuple(dict.fromkeys(args.scheme or SCHEMES))
    for scheme in schemes:
        validate.choice("scheme", scheme, SCHEMES)
    profile = profile_sfma.Profile(
        **_asked(args, args.images or ["photos"], training.SIZES, "pairs"), schemes=schemes,
        shown=tuple(Path(name) for name in args.shown or ()), digital=Path(args.digital) if args.digital else None,
    )  # fmt: skip
    return Job(lambda: _checked(partial(profile_sfma.sfma, profile)), profile_sfma.show, profile.kept)


def _digital(args: argparse.Namespace) -> Job:
    baselines.solution.require("av", "profile digital")
    from semcom_gym.benchmarks import profile_digital

    validate.choice("size", args.size, profile_digital.SIZES)
    for name, value in (("train-images", args.train_images), ("tensorboard", args.tensorboard)):
        if value is not None:
            raise ValueError(f"--{name} is no option of digital: nothing is trained")
    out = store.make_folder(args.out or f"runs/profile_digital_{args.size}")
    size = profile_digital.SIZES[args.size]
    found = machines.connect(args.backend, args.jobs, args.address)
    profile = profile_digital.Profile(tuple(args.images or ["photos"]), args.size, size, args.seed, out, found)
    return Job(lambda: _checked(partial(profile_digital.digital, profile)), profile_digital.show, profile.kept)


def _asked(
    args: argparse.Namespace, sets: list[str], sizes: Mapping[str, Any], count: str, suffix: str = ""
) -> dict[str, Any]:
    """What all networks are asked for. count: the field of a size that --train-images sets."""
    validate.choice("size", args.size, sizes)
    size = sizes[args.size]
    if args.train_images is not None:
        size = dataclasses.replace(size, **{count: args.train_images})
    out = store.make_folder(args.out or f"runs/profile_{args.network}{suffix}_{args.size}")
    return {
        "sets": tuple(sets), "size_name": args.size, "size": size, "device": args.device, "seed": args.seed,
        "out": out, "tensorboard": log_folder(args.tensorboard, out),
        "workers": machines.connect(args.backend, args.jobs, args.address),
    }  # fmt: skip


def _point(maps: str, snr_db: str) -> tuple[int, float]:
    try:
        return int(maps), float(snr_db)
    except ValueError:
        raise ValueError(f"--specialist takes a number of maps and an SNR in dB, got {maps} {snr_db}") from None


def _checked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    with user_input():  # sets may be missing, the folder's checkpoint another's
        return work()
