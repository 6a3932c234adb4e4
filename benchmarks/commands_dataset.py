"""``semcom-gym dataset``: an expert's episodes as a Minari data set."""

from __future__ import annotations

import argparse
from typing import Any

from semcom_gym.benchmarks import collect, datasets
from semcom_gym.benchmarks.commands import Job, add, overrides, parse_overrides
from semcom_gym.benchmarks.errors import user_input


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = add(
        commands, "dataset", _dataset, "write an expert's episodes as a Minari data set, with certified bounds",
        "  semcom-gym dataset SemCom/CRRA-v0 --expert fast -n 5000 --out crra/fast-v0\n"
        "  semcom-gym train --env SemCom/CRRA-v0 --algo bc --dataset crra/fast-v0\n\n"
        "Ctrl-C keeps the chunks so far: the same command goes on from there.",
    )  # fmt: skip
    parser.add_argument("env", help="environment id, as listed by: semcom-gym envs")
    parser.add_argument("--preset", help="parameters of the environment (default: the id's own)")
    parser.add_argument(
        "--expert", required=True,
        help="a solver, as listed by: semcom-gym envs; the algorithm of a shipped agent; or the folder of a run",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="NAME", help="name of the data set, as in crra/fast-v0")
    parser.add_argument(
        "--root", metavar="FOLDER",
        help="where data sets are (default: MINARI_DATASETS_PATH, or ~/.minari/datasets)",
    )  # fmt: skip
    parser.add_argument("-n", "--episodes", type=int, default=1000, help="how many episodes (default: %(default)s)")
    parser.add_argument("--split", default="train", help="train, validation or test (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="episode i is that of reset(seed=SEED + i), instead of a split's")
    parser.add_argument(
        "--noise", type=float, default=0.0,
        help="standard deviation of what is added to every entry of an action (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=1.0,
        help="of a solver on a fading id: factor on the channel powers it is shown (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--certified", type=int, default=20,
        help="how many of the first episodes get a proven bound and a score (default: %(default)s)",
    )  # fmt: skip
    overrides(parser)


def _dataset(args: argparse.Namespace) -> Job:
    changes = parse_overrides(args.overrides)
    source = collect.source(
        args.env, args.preset, args.episodes, split=args.split, seed=args.seed, noise=args.noise,
        certified=args.certified, **changes,
    )  # fmt: skip
    expert = collect.player(source.task, args.expert, args.margin)
    made = datasets.job(args.out, args.root, source, expert)
    return Job(lambda: _run(made), _show, made.kept)


def _run(made: datasets.Job) -> dict[str, Any]:
    with user_input():
        return {"name": made.name, "folder": str(made.folder), **datasets.write(made)}


def _show(found: dict[str, Any]) -> str:
    scored = "no episode has a score"
    if found["scored"]:
        scored = (
            f"on {found['scored']} of them: mean score {found['score']:.4f}, certified bound {found['bound']:.6g}, "
            f"{found['anchor_method']} {found['anchor']:.6g}"
        )
    return (
        f"{found['name']}: {found['episodes']} episodes ({found['left_out']} left out, for which the expert has no "
        f"decision), mean return {found['mean_return']:.6g}, {100 * found['feasible']:.1f} % of the steps feasible; "
        f"{scored}\nfolder: {found['folder']}; in Python: minari.load_dataset({found['name']!r})"
    )
