"""Longer studies: the numbers that the project promises, on the validation split. Run by ``make test-slow``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcom_gym import baselines, envs

pytestmark = pytest.mark.slow
PROBLEM = envs.problem("crra")


@pytest.mark.parametrize(
    ("preset", "target"), [("default", 0.002), ("hard", 0.002), ("paper", 0.002), ("select", 0.003)]
)
def test_certified_gap(preset: str, target: float) -> None:
    params = PROBLEM.preset(preset)
    instances = PROBLEM.sample_split(params, "validation", 100)
    proof = baselines.bound("crra", params, instances)
    assert proof.gap.mean() <= target
    for method in baselines.methods("crra"):
        if method == "crraus" and not params.selection:
            continue
        first = instances[:25]
        found = baselines.solve("crra", params, first, method)
        assert np.all(found.objective[found.feasible] <= proof.value[:25][found.feasible] * (1 + 1e-12))


@pytest.mark.parametrize("success", ["exact", "approximate"])
@pytest.mark.parametrize("preset", ["default", "hard"])
def test_order_of_the_methods(preset: str, success: str) -> None:
    """CRRA > FRA > FCR > MSR where resources are tight, and the fast solver is never worse than CRRA in the mean."""
    params = PROBLEM.preset(preset, success=success)
    instances = PROBLEM.sample_split(params, "validation", 60)
    names = ("fast", "crra", "fra", "fcr", "msr")
    mean = [baselines.solve("crra", params, instances, name).objective.mean() for name in names]
    assert mean == sorted(mean, reverse=True)


def test_fast_loses_little_to_the_best_known() -> None:
    params = PROBLEM.preset("default")
    instances = PROBLEM.sample_split(params, "validation", 200)
    best = baselines.solve("crra", params, instances, "fast", iterations=150, swaps=2).objective
    plain = baselines.solve("crra", params, instances, "fast").objective
    assert np.mean(1 - plain / best) <= 5e-4


@pytest.mark.parametrize(("env_id", "preset"), [("SemCom/CRRA-v0", "default"), ("SemCom/CRRA-v0", "hard")])
def test_apg_reaches_its_target(env_id: str, preset: str, tmp_path: Path) -> None:
    agents = pytest.importorskip("semcom_gym.agents")
    run = agents.train(env_id, "apg", preset=preset, timesteps=300_000, out=tmp_path, scored=50, progress=False)
    assert run.record["best"]["score"] >= 0.93
    assert run.record["best"]["feasible"] == 1.0


# --- sfma -----------------------------------------------------------------------------------------------------------
SFMA = envs.problem("sfma")


@pytest.mark.parametrize(("users", "n", "target"), [(10, 30, 0.002), (16, 3, 0.008)])
def test_certified_gap_of_sfma(users: int, n: int, target: float) -> None:
    params = SFMA.preset("default", num_users=users)
    instances = SFMA.sample_split(params, "validation", n)
    proof = baselines.bound("sfma", params, instances)
    assert proof.gap.mean() <= target
    for method in ("equal", "fast", "price_matching"):
        found = baselines.solve("sfma", params, instances, method)
        assert np.all(found.objective[found.feasible] <= proof.value[found.feasible] * (1 + 1e-12))


@pytest.mark.parametrize(("preset", "users", "n"), [("default", 10, 100), ("tight", 10, 100), ("default", 16, 12)])
def test_fast_sfma_loses_little_to_the_best_known(preset: str, users: int, n: int) -> None:
    params = SFMA.preset(preset, num_users=users)
    instances = SFMA.sample_split(params, "validation", n)
    plain = baselines.solve("sfma", params, instances, "fast")
    best = baselines.solve("sfma", params, instances, "fast", candidates=10, rounds=2)
    assert plain.feasible.all()
    assert np.mean(plain.objective / np.maximum(best.objective, plain.objective)) >= (0.997 if users == 10 else 0.985)


@pytest.mark.parametrize("preset", ["default", "tight"])
def test_order_of_the_sfma_schemes(preset: str) -> None:
    """fast > paper > equal > channel pairing, and pairing at random no better than by channel gain (to 5 %)."""
    params = SFMA.preset(preset)
    instances = SFMA.sample_split(params, "validation", 30)
    found = {name: baselines.solve("sfma", params, instances, name) for name in ("fast", "paper", "equal")}
    poor = {name: baselines.solve("sfma", params, instances, name) for name in ("channel_pairing", "random_pairing")}
    mean = {name: np.mean(x.objective[x.feasible]) for name, x in (found | poor).items()}
    assert mean["fast"] > mean["paper"] > mean["equal"] > 1.05 * max(mean["channel_pairing"], mean["random_pairing"])
    assert 0.9 <= np.mean(found["paper"].objective / found["fast"].objective) <= 0.98


def test_apg_pairs_and_shares(tmp_path: Path) -> None:
    agents = pytest.importorskip("semcom_gym.agents")
    run = agents.train("SemCom/SFMA-v0", "apg", timesteps=120_000, out=tmp_path, scored=20, progress=False)
    assert run.record["best"]["score"] >= 0.75
    assert run.record["best"]["feasible"] >= 0.98
