"""``semcom-gym render``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semcom_gym import baselines, envs
from semcom_gym.baselines import fading
from semcom_gym.benchmarks import competitors, fading_board, protocol, scenes
from semcom_gym.benchmarks.commands import Job, add, overrides, parse_overrides
from semcom_gym.envs import render, validate

SOLVER = "fast"


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = add(
        commands, "render", _render, "draw what solvers and agents decide on the same instance, with the bound",
        "  semcom-gym render SemCom/SFMA-v0 --method equal paper fast --agent apg\n"
        "  semcom-gym render SemCom/CRRAFading-v0 --sees prediction   a film of an episode (GIF)",
    )  # fmt: skip
    parser.add_argument("env", help="environment id, as listed by: semcom-gym envs")
    parser.add_argument("--preset", help="parameters of the environment (default: the id's own)")
    parser.add_argument("--method", nargs="*", help=f"solvers (default: the anchor and {SOLVER})")
    parser.add_argument(
        "--agent", nargs="*", help="agents: apg (shipped), FOLDER of a training run (default: those that ship)"
    )
    parser.add_argument(
        "--instance", type=int, default=0, metavar="I", help="which of the split (default: %(default)s)"
    )
    parser.add_argument("--split", default="test", help="train, validation or test (default: %(default)s)")
    parser.add_argument(
        "--sees",
        default="belief",
        help="of Fading ids, what solvers see: belief, prediction, truth (default: %(default)s)",
    )
    overrides(parser)
    parser.add_argument("--out", help="file to write (default: results/render/ID_PRESET_I.png, of a Fading id .gif)")


def _render(args: argparse.Namespace) -> Job:
    baselines.solution.require("matplotlib", "a picture")
    changes = parse_overrides(args.overrides)
    preset = envs.default_preset(args.env) if args.preset is None else args.preset
    validate.integer("--instance", args.instance, low=0)
    moving = args.env in envs.FADING_IDS
    ending = ".gif" if moving else ".png"
    out = Path(args.out or f"results/render/{args.env.split('/')[-1]}_{preset}_{args.instance}{ending}")
    validate.choice("ending of --out", out.suffix, (ending,))
    make = fading_board.task if moving else protocol.task
    task: Any = make(args.env, preset, n=args.instance + 1, split=args.split, **changes)
    methods = _methods(task.problem.name, args.method)
    specs = competitors.shipped(task) if args.agent is None else args.agent
    models = {
        f"{name} (agent)": found[0][0] for name, found in (competitors.models(task, spec, "cpu") for spec in specs)
    }
    if not 1 <= len(methods) + len(models) <= render.COLUMNS:
        raise ValueError(f"name 1 to {render.COLUMNS} solvers and agents, got {len(methods) + len(models)}")
    if not moving:
        return Job(lambda: _write([scenes.picture(task.parts(1)[-1], methods, models)], out), _show)
    policies: dict[str, Any] = {f"{name} ({args.sees})": fading.SolverPolicy(name, sees=args.sees) for name in methods}
    if models:
        from semcom_gym.agents.fading import Player

        policies |= {name: Player(model) for name, model in models.items()}
    episode = task.episode[args.instance :]
    return Job(lambda: _write(scenes.film(task.env.alike(1), episode, policies), out), _show)


def _methods(problem: str, named: list[str] | None) -> list[str]:
    methods = [baselines.anchor(problem), SOLVER] if named is None else named
    for name in methods:
        competitors.solver(problem, name)  # says what is wrong with it
    return methods


def _write(frames: list[render.Image], out: Path) -> dict[str, Any]:
    return {"file": str(scenes.write(frames, out)), "frames": len(frames)}


def _show(found: dict[str, Any]) -> str:
    return f"{found['file']}: {found['frames']} frame(s)"
