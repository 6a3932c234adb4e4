"""Newton's method of the CRRA problem: its derivatives, its prices, and what it says of a user who leaves."""

import numpy as np
import pytest

from semcom_gym import baselines, envs
from semcom_gym.baselines.crra import fast, newton
from semcom_gym.baselines.crra.newton import Cells, Local, bends, refine

PROBLEM = envs.problem("crra")


def sample(preset, n, split="train", **overrides):
    params = PROBLEM.preset(preset, **overrides)
    return params, PROBLEM.sample_split(params, split, n)


def converged(params, instances):
    """Cells, and a point of the ascent that Newton's method has finished with its served set."""
    cells = Cells(params, instances)
    state = fast._start(params, instances, 60)
    return cells, refine(cells, state.point(), 20, drop=False)[0]


@pytest.mark.parametrize("success", ["exact", "approximate"])
def test_derivatives_are_differences(success):
    params, instances = sample("default", 60, success=success, curves=("resnet_0db", "vgg_5db"))
    users, rng = Cells(params, instances).users, np.random.default_rng(0)
    logs = np.log(np.stack((10 ** rng.uniform(5.3, 6.3, (10, 60)), 10 ** rng.uniform(-3.5, -1.5, (10, 60)))))
    ratio = rng.uniform(0.5, 0.95, (10, 60))

    def at(by_b=0.0, by_p=0.0, by_o=0.0):
        b, p = np.exp(logs[0] + by_b), np.exp(logs[1] + by_p)
        return np.log(np.maximum(users.value(b, p, ratio + by_o), 1e-300))

    h = 1e-4
    one = [at(h), at(-h), at(0, h), at(0, -h), at(0, 0, h), at(0, 0, -h)]
    slopes = users.slopes(np.exp(logs), ratio)
    diagonal, cross, mixed = bends(slopes)
    np.testing.assert_allclose(slopes.value, np.exp(at()), rtol=1e-7, atol=1e-100)
    sure = (at() > -20) & (users.task(ratio)[0] < 1)
    assert sure.sum() > 150

    def near(found, expected):
        np.testing.assert_allclose(found[sure], expected[sure], rtol=1e-3, atol=1e-3)

    for i in (0, 1):
        up, down = one[2 * i], one[2 * i + 1]
        near(slopes.by[i], (up - down) / (2 * h))
        second = (up - 2 * at() + down) / h**2  # of ln V by ln B twice; B^2 V_BB / V from it
        near(diagonal[i], second + slopes.by[i] ** 2 - slopes.by[i])
        both = [at(**{"by_b" if i == 0 else "by_p": x, "by_o": y}) for x in (h, -h) for y in (h, -h)]
        near(mixed[i], (both[0] - both[1] - both[2] + both[3]) / (4 * h * h))
    both = [at(x, y) for x in (h, -h) for y in (h, -h)]
    crossed = (both[0] - both[1] - both[2] + both[3]) / (4 * h * h)
    near(cross, crossed + slopes.by[0] * slopes.by[1])
    second = (one[4] - 2 * at() + one[5]) / h**2
    near(slopes.ratio_bend, second)
    near(slopes.step * slopes.ratio_bend, -(one[4] - one[5]) / (2 * h))


@pytest.mark.parametrize("preset", ["default", "hard", "general"])
def test_converged_shares_have_one_price(preset):
    params, instances = sample(preset, 60)
    cells, point = converged(params, instances)
    local = Local(cells, point)
    np.testing.assert_allclose(point.share.sum(1), 1.0, rtol=1e-12)
    held = (point.share > 1e-2).all(0) & (local.value > 1e-3)
    off = local.by / (point.share + 1e-300) / local.prices[:, None] - 1
    worst = np.where(held, np.abs(off).max(0), 0.0).max(0)
    assert np.quantile(worst, 0.9) < 1e-6
    assert held.sum() > 200


def test_what_is_left_of_a_users_cost_is_what_the_others_make_of_it():
    """Against solving without the user: far closer than the cost at the going prices, which ignores that they fall."""
    params, instances = sample("default", 200)
    cells, point = converged(params, instances)
    local = Local(cells, point)
    cost, left = local._cost()
    who = np.where((point.served > 0) & (local.value > 0.02), local.value, np.inf).argmin(0)
    mask = newton.is_user(who, 10)
    _, verdict = refine(cells, point.without(mask), 40, drop=False)
    gain = verdict.value - (local.total - local.value[mask.T.nonzero()[1], np.arange(200)])
    picked = [x.T[mask.T] for x in (cost, left)]
    error = [np.abs(x / gain - 1) for x in picked]
    assert np.median(error[1]) < 0.05
    assert np.median(error[1]) < 0.2 * np.median(error[0])


@pytest.mark.parametrize("fields", [{"max_power_w": 1e-3, "min_power_w": 1e-9}, {"num_users": 1}, {"num_users": 200}])
def test_extremes_are_solved_with_all_resources(fields):
    params, instances = sample("default", 20, **fields)
    weak = instances.map(lambda x: x.copy())
    weak.gain[:10] *= 1e-6  # success is nearly zero for everybody
    solution = baselines.solve("crra", params, weak, "fast")
    assert solution.feasible.all()
    assert np.isfinite(solution.objective).all()
    np.testing.assert_allclose(solution.allocation.bandwidth_hz.sum(-1), weak.bandwidth_hz, rtol=1e-9)
    np.testing.assert_allclose(solution.allocation.power_w.sum(-1), weak.power_w, rtol=1e-9)
    best = baselines.solve("crra", params, weak, "fra").objective
    assert (solution.objective[10:] >= best[10:] * (1 - 1e-9)).all()


def test_swaps_refuse_tensors():
    pytest.importorskip("torch")
    params, instances = sample("default", 2)
    with pytest.raises(ValueError, match="swaps of method 'fast' takes NumPy instances"):
        baselines.solve("crra", params, instances.to_torch(), "fast", swaps=1)
