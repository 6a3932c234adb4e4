"""Line search over the SNR of one device of each instance, everything else at its optimum.

With the SNR of a device given the problem is convex in what it decides besides, and by the envelope theorem the slope
of the optimum in ln S is G' (:mod:`device`) at the equilibrium's prices. That finds optima the prices alone cannot
support: a single device between its two modes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from semcom_gym.baselines.training import equilibrium
from semcom_gym.baselines.training.device import Devices
from semcom_gym.baselines.training.equilibrium import HIGH, LOW, State
from semcom_gym.envs.arrays import Array
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
        self.devices, self.instance = devices, instance
        self.mode = np.where(devices.has_low & (state.tilt > 0), LOW, HIGH)
        self.right, self.anchored = devices.right.copy(), devices.anchored.copy()
        self.state = dataclasses.replace(state, low=state.low.copy())
        rows = np.arange(len(instance))
        first = self._solve(rows, self.mode, self.right, self.anchored, equilibrium.ROUNDS)
        self.allocation, self.objective, state = first
        self._settle(rows, state)

    def along(self, rows: Array, device: Array) -> None:
        """Search ln S of one device (k,) of each of the instances ``rows`` (k,), and its high mode."""
        left, peak = self.devices.left[rows, device], self.devices.peak[rows, device]
        points = left + (peak - left) * GRID[:, None]  # (POINTS, k)
        every = np.concatenate([points, np.full((1, len(rows)), np.nan)]).ravel()  # at last, the high mode
        values, slopes = self._try(np.tile(rows, POINTS + 1), np.tile(device, POINTS + 1), every)
        values, slopes = (x.reshape(POINTS + 1, -1)[:-1] for x in (values, slopes))
        encloses = (slopes[:-1] < 0) & (slopes[1:] > 0)
        low = np.where(encloses, np.minimum(values[:-1], values[1:]), np.inf).argmin(0)
        at = np.arange(len(rows))
        ends, slope = [points[low, at], points[low + 1, at]], [slopes[low, at], slopes[low + 1, at]]
        for _ in range(REFINEMENTS):
            crossing = np.flatnonzero((slope[0] * slope[1] < 0) & (np.abs(ends[0] - ends[1]) > CLOSE))
            if not len(crossing):
                break
            rows, device = rows[crossing], device[crossing]
            ends, slope = [x[crossing] for x in ends], [x[crossing] for x in slope]
            middle = (ends[0] * slope[1] - ends[1] * slope[0]) / (slope[1] - slope[0])
            _, new = self._try(rows, device, middle)
            same = new * slope[0] > 0  # Illinois: the end that stays counts half
            ends = [middle, np.where(same, ends[1], ends[0])]
            slope = [new, np.where(same, 0.5 * slope[1], slope[0])]

    def _try(self, rows: Array, device: Array, snr: Array) -> tuple[Array, Array]:
        """Objective and its slope with ln S of the devices at ``snr`` (k,), NaN: in their high mode; kept if better."""
        at = np.arange(len(rows))
        mode, right, anchored = self.mode[rows], self.right[rows], self.anchored[rows]
        mode[at, device], anchored[at, device] = HIGH, ~np.isnan(snr)
        right[at, device] = np.where(np.isnan(snr), self.devices.knee[rows, device], snr)
        found, value, state = self._solve(rows, mode, right, anchored)
        slope = self.devices.take(rows).force(right, state.log_lam, state.log_beta)[at, device]
        order = np.lexsort((value, rows))
        best = order[np.append(True, rows[order][1:] != rows[order][:-1])]  # of every instance
        best = best[value[best] < self.objective[rows[best]]]
        kept = rows[best]
        self.objective[kept] = value[best]
        self.mode[kept], self.right[kept], self.anchored[kept] = mode[best], right[best], anchored[best]
        self.allocation = self.allocation.replaced(kept, found[best])
        self._settle(kept, state[best])
        return value, slope

    def _solve(
        self, rows: Array, mode: Array, right: Array, anchored: Array, rounds: int = ROUNDS
    ) -> tuple[Allocation, Array, State]:
        part = self.devices.take(rows)
        part = part.within(part.left, right, anchored)
        state = equilibrium.solve(part, mode, self.state[rows], rounds)
        found = equilibrium.decide(part, mode, state)
        outcome = physics.evaluate(self.devices.params, self.instance[rows], found)
        return found, np.where(outcome.feasible, outcome.objective, np.inf), state

    def _settle(self, rows: Array, state: State) -> None:
        """Start from ``state`` next time, where Newton's method has converged."""
        good = state.residual < equilibrium.CONVERGED
        self.state = self.state.replaced(rows[good], state[good])
