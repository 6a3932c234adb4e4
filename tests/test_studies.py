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
