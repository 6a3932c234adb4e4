"""Pictures of what solvers and agents do on the same instance, and films of what they do over an episode."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from semcom_gym import baselines
from semcom_gym.baselines import fading
from semcom_gym.benchmarks import protocol, store
from semcom_gym.envs import render
from semcom_gym.envs.fading_env import FadingVectorEnv
from semcom_gym.envs.outcome import Outcome
from semcom_gym.envs.render import Image

FRAME_MS, LAST_MS = 700, 3000
Policy = fading.SolverPolicy | Callable[[Any, Any], Any]


def picture(task: protocol.Task, methods: list[str], models: Mapping[str, Any]) -> Image:
    """The first instance of a task decided by solvers and by models, side by side, with the certified bound."""
    problem, params, instance = task.problem, task.params, task.instance[:1]
    decisions = {name: baselines.solve(problem.name, params, instance, name).allocation for name in methods}
    for name, model in models.items():
        from semcom_gym.agents import allocate

        decisions[name] = allocate(model, problem, params, instance)
    outcomes = {name: problem.evaluate(params, instance, decision) for name, decision in decisions.items()}
    bound = float(baselines.bound(problem.name, params, instance).value[0])
    return render.side_by_side(problem, params, instance, outcomes, bound)


def film(env: FadingVectorEnv, episode: Any, policies: Mapping[str, Policy]) -> list[Image]:
    """A frame per block of an episode (one, for an ``env`` of one) as each policy plays it, with the genie's bound on
    the sum over the blocks."""
    blocks = {name: _played(env, episode, policy) for name, policy in policies.items()}
    bound = float(fading.genie(env, episode)[0])
    shown = episode.blocks(true=True)
    frames = []
    for block in range(episode.horizon):
        outcomes = {name: played[block] for name, played in blocks.items()}
        reached = {
            name: [float(outcome.objective[0]) for outcome in played[: block + 1]] for name, played in blocks.items()
        }
        story = render.Story(reached, episode.horizon, bound)
        frames.append(render.side_by_side(env.problem, env.params, shown[block : block + 1], outcomes, story=story))
    return frames


def _played(env: FadingVectorEnv, episode: Any, policy: Policy) -> list[Outcome]:
    """The outcome of every block."""
    outcomes = []
    for _ in fading.blocks(env, episode, policy):
        assert env.outcome is not None
        outcomes.append(env.outcome)
    return outcomes


def write(frames: list[Image], path: Path) -> Path:
    """Write a picture (PNG), or several as a film (GIF), at once or not at all."""
    from PIL import Image as Pillow

    pictures = [Pillow.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    if len(pictures) == 1:
        pictures[0].save(stream, "PNG")
    else:
        # One palette for all, of the last frame, which has all there is to see: a palette each would flicker.
        palette = pictures[-1].quantize(64, dither=Pillow.Dither.NONE)
        pictures = [picture.quantize(palette=palette, dither=Pillow.Dither.NONE) for picture in pictures]
        times = [FRAME_MS] * (len(pictures) - 1) + [LAST_MS]
        pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0)
    store.make_folder(path.parent)
    store.write_atomically(path, stream.getvalue())
    return path
