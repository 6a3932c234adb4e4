"""``semcom-gym tune``: search for an agent's hyper-parameters on the validation split."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from pathlib import Path
from typing import Any

from semcom_gym.benchmarks import protocol, table
from semcom_gym.benchmarks.commands import Job, add, learner, parse_overrides
from semcom_gym.benchmarks.errors import user_input
from semcom_gym.envs import validate

OPTIONS = ("trials", "timesteps", "num_envs", "preset", "seed", "device", "space", "evaluations", "scored")


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    tune = add(
        commands, "tune", _tune, "search for the hyper-parameters of an agent on the validation split",
        "  semcom-gym tune --env SemCom/CRRA-v0 --algo ppo --trials 20 --timesteps 50000 --seed 0 --out runs/tune_ppo\n"
        "  tensorboard --logdir runs/tune_ppo\n\n"
        "Finished trials are kept: after Ctrl-C, the same command goes on; a larger --trials adds to a finished study.",
    )  # fmt: skip
    learner(tune)
    tune.add_argument("--algo", default="apg", help="algorithm, as of semcom-gym train (default: %(default)s)")
    tune.add_argument("--trials", type=int, default=20, help="training runs in all (default: %(default)s)")
    tune.add_argument("--seed", type=int, default=0, help="seed of the search and of each trial (default: %(default)s)")
    tune.add_argument("--out", help="folder of the study (default: runs/tune_ID_PRESET_ALGO_seedSEED)")
    tune.add_argument("--space", metavar="FILE", help="search space (default: agents/search_spaces/ALGO.yml)")
    tune.add_argument("--evaluations", type=int, default=10, help="validations of a trial (default: %(default)s)")
    tune.add_argument(
        "--scored", type=int, default=20,
        help="validation instances with a score, one proof each at the start (default: %(default)s)",
    )  # fmt: skip


def _tune(args: argparse.Namespace) -> Job:
    changes = parse_overrides(args.overrides)
    protocol.task(args.env, args.preset, n=1, **changes)
    from semcom_gym import agents  # says which package is missing
    from semcom_gym.agents import search_space, tuning

    validate.choice("algorithm", args.algo, agents.ALGORITHMS)
    search_space.load(args.algo, args.space)
    tuning.require_optuna()
    folder = args.out or f"runs/tune_{agents.store.file_name(args.env, args.algo, args.preset)}_seed{args.seed}"
    options = {name: getattr(args, name) for name in OPTIONS} | changes

    def kept() -> str:
        return f"{tuning.count(folder)} finished trial(s) are kept in {folder}; the same command goes on from there"

    return Job(lambda: _run(args.env, args.algo, folder, options), _show, kept)


def _run(env_id: str, algo: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
    from semcom_gym.agents import tune

    with user_input(), contextlib.redirect_stdout(sys.stderr):  # tune checks its arguments and the study's folder
        study = tune(env_id, algo, out=folder, **options)
    return {"folder": folder, "trials": study.trials, "best": study.best}


def _show(found: dict[str, Any]) -> str:
    header = list(found["trials"][0])
    rows = [[_text(row[name]) for name in header] for row in found["trials"]]
    files = [Path(found["folder"], "trials.csv")]
    if found["best"] is None:
        last = "no trial was finished: every one diverged"
    else:
        last = f"best on validation: trial {found['best']['trial']}, score {found['best']['score']:.4f}"
        files.append(Path(found["folder"], "best.yml"))
    return "\n".join(
        [table.aligned(header, rows, left=()), "", last, "written:", *map(str, files),
         f"to look at the trials: tensorboard --logdir {found['folder']}"]
    )  # fmt: skip


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.5g}"
    return str(value)
