"""The geometric programme, an independent check of the exact solver where PSNR leaves the ratio at its least."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semcom_gym import baselines, envs

TRAINING = envs.problem("training")


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = TRAINING.preset(preset, **overrides)
    return params, TRAINING.sample_split(params, "validation", n)


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("paper", {"num_users": 10, "total_bandwidth_hz": 4e6}),
        ("default", {"psnr_range_db": (25.0, 25.5)}),  # power and clock caps bind
        ("default", {"min_ratio": 0.2, "max_ratio": 0.2, "num_users": 4}),  # PSNR too, at a ratio without choice
        ("default", {"max_bs_frequency_hz": 4e8, "time_weight": 0.99, "psnr_range_db": (25.0, 25.5), "num_users": 3}),
    ],
)
def test_agrees_with_fast_and_bound(preset: str, overrides: dict[str, Any]) -> None:
    params, instances = batch(preset, 3, **overrides)
    convex = baselines.solve("training", params, instances, "convex")
    assert convex.feasible.all()
    fast = baselines.solve("training", params, instances, "fast")
    np.testing.assert_allclose(convex.objective, fast.objective, rtol=1e-6)
    proven = baselines.bound("training", params, instances).value
    assert (convex.objective >= proven).all()
    np.testing.assert_allclose(convex.objective, proven, rtol=1e-6)


def test_feasible_but_not_optimal_where_larger_ratios_pay() -> None:
    params, instances = batch("hard", 5)
    convex = baselines.solve("training", params, instances, "convex")
    fast = baselines.solve("training", params, instances, "fast")
    assert convex.feasible.all()
    assert (convex.allocation.ratio == params.min_ratio).all()
    assert (convex.objective >= fast.objective * (1 - 1e-6)).all()
    assert (convex.objective > 1.05 * fast.objective).any()


def test_arguments_are_checked() -> None:
    params, instances = batch("default", 1)
    with pytest.raises(ValueError, match=r"terms must be >= 2, got 1"):
        baselines.solve("training", params, instances, "convex", terms=1)
