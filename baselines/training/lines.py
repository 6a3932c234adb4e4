"""Line search over the SNR of one device of each instance, everything else at its optimum.

With the SNR of a device given the problem is convex in what it decides besides, and by the envelope theorem the slope
of the optimum in ln S is G' (:mod:`device`) at the equilibrium's prices. That finds optima the prices alone cannot
support: a single device between its two modes.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from semcom_gym.baselines.training import equilibrium
from semcom_gym.baselines.training.device import Devices
from semcom_gym.baselines.training.equilibrium import HIGH, LOW, State
from semcom_gym.envs.arrays import Array, copied, like, namespace, rows_where
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance
from semcom_gym.envs.training.physics import Allocation

POINTS = 10
GRID = 1.0 - np.linspace(1.0, 0.0, POINTS) ** 1.5  # from the bottom to the peak, denser there
REFINEMENTS = 6  # of regula falsi
CLOSE = 1e-5  # of ln S: the objective is flat there
ROUNDS = 6  # of Newton's method, as in equilibrium


class Search:
    """The best known of every instance; ``along`` improves it."""

    def __init__(self, devices: Devices, instance: Instance, state: State) -> None:
        xp = namespace(state.tilt)
        self.devices, self.instance = devices, instance
        self.mode = LOW * xp.astype(devices.has_low & (state.tilt > 0), xp.int64)  # the others HIGH
        self.right, self.anchored = copied(devices.right), copied(devices.anchored)
        self.state = dataclasses.replace(state, low=copied(state.low))
        rows = xp.arange(len(instance), device=state.tilt.device)
        first = self._solve(rows, self.mode, self.right, self.anchored, equilibrium.ROUNDS)
        self.allocation, self.objective, state = first
        self._settle(rows, state)

    def along(self, rows: Array, device: Array) -> None:
        """Search ln S of one device (k,) of each of the instances ``rows`` (k,), and its high mode."""
        left, peak = self.devices.left[rows, device], self.devices.peak[rows, device]
        xp = namespace(left)
        points = left + (peak - left) * like(GRID, left)[:, None]  # (POINTS, k)
        every = xp.concat([points, xp.full_like(points[:1], math.nan)])  # at last, the high mode
        values, slopes = (x[:-1] for x in self._try(rows, device, every))
        encloses = (slopes[:-1] < 0) & (slopes[1:] > 0)
        low = xp.where(encloses, xp.minimum(values[:-1], values[1:]), math.inf).argmin(0)
        at = xp.arange(len(rows), device=rows.device)
        ends, slope = [points[low, at], points[low + 1, at]], [slopes[low, at], slopes[low + 1, at]]
        for _ in range(REFINEMENTS):
            crossing = rows_where((slope[0] * slope[1] < 0) & (xp.abs(ends[0] - ends[1]) > CLOSE))
            if not len(crossing):
                break
            rows, device = rows[crossing], device[crossing]
            ends, slope = [x[crossing] for x in ends], [x[crossing] for x in slope]
            middle = (ends[0] * slope[1] - ends[1] * slope[0]) / (slope[1] - slope[0])
            new = self._try(rows, device, middle[None])[1][0]
            same = new * slope[0] > 0  # Illinois: the end that stays counts half
            ends = [middle, xp.where(same, ends[1], ends[0])]
            slope = [new, xp.where(same, 0.5 * slope[1], slope[0])]

    def _try(self, rows: Array, device: Array, snr: Array) -> tuple[Array, Array]:
        """Objective and its slope with ln S of the devices at ``snr`` (m, k), NaN: in their high mode.

        rows, device: (k,), each instance once. The best is kept if it is better than what is known.
        """
        xp, tries, snr = namespace(snr), snr.shape, snr.reshape(-1)
        rows, device = (xp.tile(x, tries[:1]) for x in (rows, device))
        at, high = xp.arange(len(rows), device=rows.device), xp.isnan(snr)
        mode, right, anchored = self.mode[rows], self.right[rows], self.anchored[rows]
        mode[at, device], anchored[at, device] = HIGH, ~high
        right[at, device] = xp.where(high, self.devices.knee[rows, device], snr)
        found, value, state = self._solve(rows, mode, right, anchored)
        one = self.devices.flat(rows * mode.shape[1] + device)
        slope = one.force(right[at, device], state.log_lam[:, 0], state.log_beta[at, device])
        best = value.reshape(tries).argmin(0) * tries[1] + at[: tries[1]]  # of every instance
        best = best[rows_where(value[best] < self.objective[rows[best]])]
        kept = rows[best]
        self.objective[kept] = value[best]
        self.mode[kept], self.right[kept], self.anchored[kept] = mode[best], right[best], anchored[best]
        self.allocation = self.allocation.replaced(kept, found[best])
        self._settle(kept, state[best])
        return value.reshape(tries), slope.reshape(tries)

    def _solve(
        self, rows: Array, mode: Array, right: Array, anchored: Array, rounds: int = ROUNDS
    ) -> tuple[Allocation, Array, State]:
        part = self.devices.take(rows)
        part = part.within(part.left, right, anchored)
        state = equilibrium.solve(part, mode, self.state[rows], rounds)
        found = equilibrium.decide(part, mode, state)
        outcome = physics.evaluate(self.devices.params, self.instance[rows], found)
        return found, namespace(right).where(outcome.feasible, outcome.objective, math.inf), state

    def _settle(self, rows: Array, state: State) -> None:
        """Start from ``state`` next time, where Newton's method has converged."""
        good = rows_where(state.residual < equilibrium.CONVERGED)
        self.state = self.state.replaced(rows[good], state[good])
