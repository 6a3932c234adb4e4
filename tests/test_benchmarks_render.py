"""Pictures of several decisions side by side, and films of an episode (`semcom-gym render`)."""

from __future__ import annotations

import contextlib
import io
import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from PIL import Image

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import cli, scenes
from semcom_gym.envs import render

HEIGHT, COLUMN = 900, 480


def run(*arguments: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()):
        return cli.main(["render", *arguments])


@pytest.mark.parametrize("env_id", sorted(envs.IDS))
def test_a_picture_of_every_id(env_id: str, tmp_path: Path) -> None:
    out = tmp_path / "made" / "picture.png"
    assert run(env_id, "--agent", "--instance", "1", "--split", "train", "--set", "num_users=4", "--out", str(out)) == 0
    pixels = np.asarray(Image.open(out))
    assert pixels.shape == (HEIGHT, 2 * COLUMN, 3)
    left, right = pixels[:, :COLUMN], pixels[:, COLUMN:]
    assert (left != right).any(axis=-1).sum() > 1000, "anchor and solver decide differently, and it shows"


def test_the_shipped_agent_and_the_same_file_twice(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        assert run("SemCom/CRRA-v0", "--method", "fast", "--agent", "apg", "--out", str(tmp_path / name)) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("env_id", sorted(envs.FADING_IDS))
def test_a_film_of_every_fading_id(env_id: str, tmp_path: Path) -> None:
    out = tmp_path / "film.gif"
    few = ("--set", "horizon=3", "--set", "num_users=4")
    assert run(env_id, *few, "--agent", "--sees", "prediction", "--out", str(out)) == 0
    film = Image.open(out)
    assert film.n_frames == 3
    assert film.size == (2 * COLUMN, HEIGHT)


def test_frames_of_a_film_hold_what_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The story of the last frame adds up to what the solver plays, and the first frame knows the first block only."""
    from semcom_gym.baselines import fading
    from semcom_gym.benchmarks import protocol

    env = protocol.make_vector("SemCom/CRRAFading-v0", 1, dtype="float64", horizon=3, num_users=3).unwrapped
    episode = env.episodes("train", 1)
    policy = fading.SolverPolicy("fra")
    stories = []
    monkeypatch.setattr(render, "side_by_side", lambda *_, story, **__: stories.append(story))
    scenes.film(env, episode, {"a": policy})
    assert [len(story.objectives["a"]) for story in stories] == [1, 2, 3]
    played = fading.play(env, episode, policy)
    np.testing.assert_allclose(stories[-1].objectives["a"], played.objective[0], rtol=1e-12)
    assert stories[0].bound == pytest.approx(float(fading.genie(env, episode)[0]))
    assert sum(stories[-1].objectives["a"]) < stories[-1].bound


def test_scales_are_common() -> None:
    """The same decision in both columns gives the same pixels, whatever stands beside it."""
    problem = envs.problem("training")
    params = problem.preset("default")
    instance = problem.sample_split(params, "train", 1)
    outcomes = [
        problem.evaluate(params, instance, baselines.solve("training", params, instance, name).allocation)
        for name in ("fast", "average")
    ]
    alone = render.side_by_side(problem, params, instance, {"x": outcomes[0], "y": outcomes[0]})
    assert (alone[60:, :COLUMN] == alone[60:, COLUMN:]).mean() > 0.999
    with_other = render.side_by_side(problem, params, instance, {"x": outcomes[0], "y": outcomes[1]})
    assert (alone[:, :COLUMN] != with_other[:, :COLUMN]).any(), "a worse decision beside it changes the scale"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("SemCom/CRRA-v0", "--method", "fats"), "unknown crra method 'fats'"),
        (("SemCom/SFMA-v0", "--method", "noma", "--agent"), "stands for another transceiver"),
        (("SemCom/CRRA-v0", "--agent", "--method"), "name 1 to 4 solvers and agents, got 0"),
        (("SemCom/CRRA-v0", "--agent", "--method", "fra", "fcr", "msr", "fast", "equal"), "name 1 to 4"),
        (("SemCom/CRRA-v0", "--agent", "ppo"), "no shipped agent 'CRRA-v0_default_ppo'"),
        (("SemCom/CRRA-v0", "--out", "x.gif"), "unknown ending of --out '.gif'; valid: .png"),
        (("SemCom/CRRAFading-v0", "--out", "x.png"), "valid: .gif"),
        (("SemCom/CRRAFading-v0", "--sees", "all"), "unknown sees 'all'"),
        (("SemCom/CRRA-v0", "--instance", "-1"), "--instance"),
        (("SemCom/CRRA-v0", "--set", "num_user=3"), "num_user"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_story_of_a_frame_shows() -> None:
    import gymnasium as gym

    env = gym.make("SemCom/SFMAFading-v0", render_mode="rgb_array", disable_env_checker=True, horizon=3, num_users=4)
    env.reset(seed=0, options={"bound": 200.0})
    pictures = [env.render()]
    for _ in range(3):
        env.step(np.zeros(env.action_space.shape, np.float32))
        pictures.append(env.render())
    strips = [picture[380:, :480] for picture in pictures]
    for before, after in itertools.pairwise(strips):
        assert (before != after).any()
    env.unwrapped.bound = None
    assert (env.render()[380:, :480] != strips[-1]).any(), "the bound must be visible"
