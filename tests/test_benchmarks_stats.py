"""Statistics on values that are known."""

import numpy as np
import pytest

from semcom_gym.benchmarks import stats


def test_interquartile_mean_drops_a_quarter_at_each_end():
    assert stats.iqm(np.array([-100.0, 1.0, 2.0, 100.0])) == 1.5
    assert stats.iqm(np.arange(8.0)) == np.mean([2, 3, 4, 5])


def test_interval_of_a_mean_is_that_of_the_normal_theory():
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    found = stats.estimate(values, stats.mean)
    assert found.value == pytest.approx(values.mean())
    width = 2 * 1.96 * values.std() / 20
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert found.low < values.mean() < found.high


def test_estimate_is_reproducible_and_leaves_the_global_generator_alone():
    values = np.random.default_rng(0).random((3, 50))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert stats.estimate(values) == stats.estimate(values)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_seeds_widen_the_interval():
    instances = np.random.default_rng(1).normal(0.0, 0.1, 100)
    alike = np.stack([instances, instances, instances])
    apart = alike + np.array([[-1.0], [0.0], [1.0]])
    one, same, other = (stats.estimate(x, stats.mean) for x in (instances, alike, apart))
    assert same.high - same.low == pytest.approx(one.high - one.low, rel=0.1)
    assert other.high - other.low > 5 * (same.high - same.low)


def test_difference_is_paired():
    shared = np.random.default_rng(2).normal(0.0, 10.0, 60)
    found = stats.difference(shared + 0.5, shared)
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5)


def test_one_and_no_observation_have_no_interval():
    one, none = stats.estimate(np.array([2.0])), stats.estimate(np.array([]))
    assert one.value == 2.0
    assert np.isnan([one.low, one.high, none.value]).all()


def test_constant_scores_have_an_interval_of_no_width():
    found = stats.estimate(np.zeros(30))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
