"""Algorithm 2 of the training paper: P4 as a sum of ratios, by a modified Newton method around P7 (34).

P7 is solved by its KKT conditions in the order of the paper's roadmap, (43)-(56), put right where it does not go
through (docs/training.md): in step 1 the multiplier of the power cap is iota; in (51) the first term lacks D_n and the
second has g_n too often; and P7 is homogeneous of degree one in (p_n, B_n), so that no B_n solves (54) while neither
the rate nor the power cap binds: a device is at one of the two, whichever is cheaper, or at the price where both cost
the same on a mixture of them. omega_2 scales gamma and all multipliers alike and is left out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.special

from semcom_gym.baselines.training import p4
from semcom_gym.baselines.training.p4 import Upload
from semcom_gym.envs.arrays import Array, Batch

RESIDUAL = 1e-9  # of phi (38), relative: "approximately a zero vector"
TRIALS = 20  # of a power of xi in (39)


@dataclasses.dataclass(frozen=True)
class Refined:
    """Where Algorithm 2 ended: powers [W] and bandwidths [Hz] (n, N), Newton steps (n,), whether phi vanished (n,)."""

    power_w: Array
    bandwidth_hz: Array
    steps: Array
    converged: Array


@dataclasses.dataclass(frozen=True)
class State(Batch):
    """An iterate of Algorithm 2."""

    # (n, N) energy per device delta [J] and gamma [s/nat]
    delta: Array
    gamma: Array
    # (n, N) the solution of P7 for them: powers [W], bandwidths [Hz]
    power_w: Array
    bandwidth_hz: Array


def refine(task: Upload, power: Array, bandwidth: Array, *, iterations: int, xi: float, epsilon: float) -> Refined:
    """P4 from feasible powers [W] and bandwidths [Hz], (n, N). iterations [I] at most; xi, epsilon: of (39)."""
    rate = bandwidth * _nats(task, power, bandwidth)
    state = _at(task, power * task.load / rate, 1.0 / rate)  # (37)
    steps = np.zeros(len(power), int)
    active = np.flatnonzero(_norm(task, state) > RESIDUAL)
    for _ in range(iterations):
        if not len(active):
            break
        state = state.replaced(active, _newton(task[active], state[active], xi, epsilon))
        steps[active] += 1
        active = active[_norm(task[active], state[active]) > RESIDUAL]
    return Refined(state.power_w, state.bandwidth_hz, steps, ~np.isin(np.arange(len(power)), active))


def _newton(task: Upload, state: State, xi: float, epsilon: float) -> State:
    """(39)-(42): phi is linear in delta and gamma at fixed (p, B), slope r_n in both; the last trial if all fail."""
    rate = state.bandwidth_hz * _nats(task, state.power_w, state.bandwidth_hz)
    by_delta, by_gamma = state.power_w * task.load / rate - state.delta, 1.0 / rate - state.gamma
    before, found, pending, size = _norm(task, state), state, np.arange(len(rate)), 1.0
    for _ in range(TRIALS):
        part, old = task[pending], state[pending]
        trial = _at(part, old.delta + size * by_delta[pending], old.gamma + size * by_gamma[pending])
        found = found.replaced(pending, trial)
        pending = pending[_norm(part, trial) > (1.0 - epsilon * size) * before[pending]]
        if not len(pending):
            break
        size *= xi
    return found


def _norm(task: Upload, state: State) -> Array:
    """(n,) the norm of phi (38), its first half in units of pmax rho d D, its second of omega_2."""
    rate = state.bandwidth_hz * _nats(task, state.power_w, state.bandwidth_hz)
    energy = (state.delta * rate - state.power_w * task.load) / (task.cap * task.load)
    return np.sqrt(np.sum(energy**2 + (state.gamma * rate - 1.0) ** 2, axis=-1))


def _at(task: Upload, delta: Array, gamma: Array) -> State:
    return State(delta, gamma, *solve(task, delta, gamma))


def _nats(task: Upload, power: Array, bandwidth: Array) -> Array:
    return np.log1p(power / (task.noise * bandwidth))


def solve(task: Upload, delta: Array, gamma: Array) -> tuple[Array, Array]:
    """Powers [W] and bandwidths [Hz] (56) of P7 for delta and gamma, (n, N).

    On a hertz at SNR S, P7 costs a S - b ln(1 + S) + zeta. Where that is negative for some S, more bandwidth pays
    until the power cap binds; where it is not, the rate constraint decides.
    """
    a, b = gamma * task.load * task.noise, gamma * delta
    free = np.clip(np.log(np.maximum(b / a, 1.0)), task.low, task.high)  # (49), (50)
    least = a * np.expm1(free) - b * free
    reach, most = task.cap / task.noise, task.total[:, None]

    def respond(price: Array) -> tuple[Array, Array]:
        zeta = price[:, None]
        power, bandwidth = p4.tight(task, np.clip(p4.worth(zeta / a), task.low, task.high))  # (53), eta > 0
        snr = np.expm1(np.clip(_capped(zeta / b), task.low, task.high))  # (54) with iota > 0
        whole = reach > most * snr  # more than all bandwidth, where (49) holds again
        wide_w = np.where(whole, np.minimum(task.noise * most * np.expm1(free), task.cap), task.cap)
        wide = least + zeta < 0.0
        return np.where(wide, wide_w, power), np.where(wide, np.minimum(reach / snr, most), bandwidth)

    high = np.max(np.maximum(a * p4.cost(task.high), b * task.high), axis=-1)
    power, bandwidth = p4.clear(respond, high, task.total)
    return np.minimum(power, task.cap), bandwidth


def _capped(price: Array) -> Array:
    """The u > 0 with ln(1 + S) - S / (1 + S) = ``price`` > 0: 1 + price + W(-exp(-1 - price)), polished."""
    nats = 1.0 + price + scipy.special.lambertw(-np.exp(-1.0 - price)).real
    nats = np.where(price < p4.BRANCH, np.sqrt(2.0 * price), nats)
    for _ in range(2):
        nats = nats + (nats + np.expm1(-nats) - price) / np.expm1(-nats)
    return nats
