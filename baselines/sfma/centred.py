"""A bound of V on a cell whose excess is of second order in the cell's widths.

docs/sfma.md ("The certificate") derives every step: Taylor's formula around the middle, one limit taken in with a
multiplier, and the range that the best ratio has on the cell.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.baselines.sfma.cells import Cells, Plane, best_ratio
from semcom_gym.envs.arrays import Array, falling
from semcom_gym.envs.sfma.physics import LN2


def bound(plane: Plane, price: Array, cells: Cells, ratio: Array) -> Array:
    """An upper bound of V on each cell, -inf where it holds nothing feasible.

    ratio: about the best one at the middle; any number gives a valid bound.
    """
    return _Middle(plane, price, cells).bound(ratio)


class _Middle:
    """Cells, seen from their middles (y, x). Arrays end in 1, 0 and 2 for values at (y, x1), (y, x) and (y, x2); they
    are of both users where they have two rows.
    """

    def __init__(self, plane: Plane, price: Array, cells: Cells) -> None:
        (self.lam, self.mu, self.nu), pair, user = plane.of(price, cells.pair)
        self.a, beta, offset, self.floor, rho_min, span = pair
        snr, self.source, self.urgent = user
        self.power, self.bandwidth, _ = plane.budget
        self.zeta, self.shift = self.nu * plane.zeta, beta / self.a
        middle = cells.middle()
        self.cells, self.y, x = cells, middle.y, middle.x
        self.half, self.up, self.down = cells.x2 - x, cells.y2 - self.y, self.y - cells.y1
        # the ratio where p would be 0
        self.reach1, self.reach0, self.reach2 = ((edge - offset) / beta for edge in (cells.x1, x, cells.x2))
        self._rates(x, rho_min, span, snr)
        self.late, self.slow = (rate[1] > rate[0] for rate in (self.urgent / self.psi0, self.source / self.psi0))
        self.joule0, self.fall1, self.fall0, self.fall2 = self._energy()

    def _rates(self, x: Array, rho_min: Array, span: Array, snr: Array) -> None:
        """psi, its slope in y (bend) and in x (rise), and bounds over all x of the cell of these and of its second
        derivative in x (curve).
        """
        y, wait = self.y, self.y / snr
        x1, x2 = self.cells.x1, self.cells.x2
        s1, s0, s2 = falling(x1), falling(x), falling(x2)
        z1, z0, z2 = (rho_min + span * s + wait for s in (s1, s0, s2))
        log1, log0, log2 = ((1.0 / LN2) * np.log1p(1.0 / z) for z in (z1, z0, z2))
        q1, q0, q2 = ((1.0 / LN2) / (z * (1.0 + z)) for z in (z1, z0, z2))  # how fast that falls in z
        self.psi1, self.psi0, self.psi2 = y * log1, y * log0, y * log2
        self.bend0, self.bend2 = log0 - wait * q0, log2 - wait * q2
        self.bend_low, self.bend_high = np.maximum(log1 - wait * q2, 0.0), log2 - wait * q1
        steepest = span * np.where(x1 > 0, s1 * (1.0 - s1), np.where(x2 < 0, s2 * (1.0 - s2), 0.25))
        self.rise0, self.rise_high = y * span * s0 * (1.0 - s0) * q0, y * steepest * q2
        concave = np.maximum(2.0 * s1 - 1.0, 0.0)  # rho is, where x < 0
        self.curve = self.rise_high * (concave + LN2 * steepest * q2 * (1.0 + 2.0 * z2))

    def _energy(self) -> tuple[Array, Array, Array, Array]:
        """Priced energy per unit of the ratio of the slow user, and how fast it falls in psi at x1, x and x2."""
        source = self.nu * _of(self.slow, self.source)
        psi1, psi0, psi2 = (_of(self.slow, psi) for psi in (self.psi1, self.psi0, self.psi2))
        return source / psi0, source / psi1**2, source / psi0**2, source / psi2**2

    def _ratios(self) -> tuple[Array, Array]:
        """The least and the largest that the best ratio of a feasible point of the cell can be."""
        y1, y2, share = self.cells.y1, self.cells.y2, self.cells.y1 / self.y
        tilt = self.bend2[0] + self.bend2[1] - self.mu
        most_gain = self.psi2[0] + self.psi2[1] - self.lam - self.mu * self.y
        most_gain += np.maximum(tilt * self.up, -tilt * self.down)
        both = self.psi1[0] + self.psi1[1]
        least_gain = np.minimum(both * share - self.mu * y1, both - self.mu * y2) - self.lam
        least, most = self.psi1 * share, self.psi2 + self.bend2 * self.up  # psi on the cell: it is concave in y
        dear = self.nu * np.maximum(*(self.source / least)) + self.shift * most_gain
        cheap = self.nu * np.maximum(*(self.source / most)) + self.shift * least_gain
        low1, high1 = self._limits(self.reach1, y1, least)
        low2, high2 = self._limits(self.reach2, y2, most)
        first = np.maximum(np.minimum(best_ratio(self.zeta, dear), high1), low1)
        return first, np.minimum(np.maximum(best_ratio(self.zeta, cheap), low2), high2)

    def _limits(self, reach: Array, y: Array, psi: Array) -> tuple[Array, Array]:
        """The ratios that the budgets and the floor, and the deadline, allow at a corner."""
        low = np.maximum(self.floor, reach - np.minimum(self.power, self.bandwidth / y) / self.shift)
        need = np.maximum(*(self.urgent / psi))
        return low, np.minimum(1.0, reach * self.shift / (self.shift + need))

    def bound(self, ratio: Array) -> Array:
        """See the function of that name."""
        first, last = self._ratios()
        base = np.clip(ratio, first, np.maximum(first, last))
        deadline, watt, band = self._multipliers(base, np.maximum(last - base, base - first))
        late, urgent = np.stack([~self.late, self.late]), deadline * _of(self.late, self.urgent)
        worth, mu = 1.0 + deadline * late, self.mu + band
        gain = _sum(worth * self.psi0) - self.lam - watt - mu * self.y
        value = (self.reach0 - base) * self.shift * gain - base * (self.joule0 + urgent) + self.zeta * np.log(base)
        value += watt * self.power + band * self.bandwidth
        in_ratio = self.zeta / base - self.shift * gain - self.joule0 - urgent
        rise0, rise, curve = (_sum(worth * slope) for slope in (self.rise0, self.rise_high, self.curve))
        grow = gain / self.a, rise0, 2.0 / self.a * rise, curve
        tilts = _sum(worth * self.bend_high) - mu, _sum(worth * self.bend_low) - mu
        ends = (value + in_ratio * (end - base) + self._around(end, *grow, *tilts) for end in (first, last))
        return np.where(first <= last, np.maximum(*ends), -np.inf)

    def _multipliers(self, base: Array, far: Array) -> tuple[Array, Array, Array]:
        """Of the limit that the ratio runs into at the middle, the others 0: the deadline p psi >= urgent delta,
        p <= Pmax, p y <= Bmax. What makes slopes vanish is tried; any numbers >= 0 give a valid bound.

        far: how far other ratios are from ``base``.
        """
        p = (self.reach0 - base) * self.shift
        gain = self.psi0[0] + self.psi0[1] - self.lam - self.mu * self.y
        bend, rise = _of(self.slow, self.bend0), _of(self.slow, self.rise0)
        in_x = gain / self.a + p * (self.rise0[0] + self.rise0[1]) + base * rise * self.fall0
        in_y = p * (self.bend0[0] + self.bend0[1] - self.mu) + base * bend * self.fall0
        in_ratio = self.zeta / base - self.shift * gain - self.joule0
        tight, wide = in_ratio > 0, self.y > self.bandwidth / self.power
        psi, bend, rise, urgent = (_of(self.late, x) for x in (self.psi0, self.bend0, self.rise0, self.urgent))
        spare = np.where(tight, p * psi - urgent * base, np.where(wide, self.bandwidth - p * self.y, self.power - p))
        of_x = np.where(tight, psi / self.a + p * rise, np.where(wide, -self.y, -1.0) / self.a)
        of_y = np.where(tight, p * bend, np.where(wide, -p, 0.0))
        of_ratio = np.where(tight, -self.shift * psi - urgent, self.shift * np.where(wide, self.y, 1.0))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            tried = np.stack([0.0 * p, -in_x / of_x, -in_y / of_y, -in_ratio / of_ratio])
        tried = np.where(np.isfinite(tried), np.maximum(tried, 0.0), 0.0)
        excess = tried * spare + self.half * abs(in_x + tried * of_x)
        excess += self.up * abs(in_y + tried * of_y) + far * abs(in_ratio + tried * of_ratio)
        weight = np.take_along_axis(tried, np.argmin(excess, axis=0)[None], 0)[0]
        cap = np.where(tight, 0.0, weight)
        return weight - cap, np.where(wide, 0.0, cap), np.where(wide, cap, 0.0)

    def _around(
        self, ratio: Array, gain: Array, rise: Array, twist: Array, curve: Array, steep: Array, flat: Array
    ) -> Array:
        """What the rest of the cell may have above the middle, at a ratio: by Taylor along x at the middle's y, and,
        since all is concave in y, by the slopes in y there.
        """
        p, step = (self.reach0 - ratio) * self.shift, self.half / self.a
        in_x = gain + p * rise + ratio * _of(self.slow, self.rise0) * self.fall0
        second = twist + np.maximum(p + step, 0.0) * curve + ratio * _of(self.slow, self.curve) * self.fall1
        high = p * steep + step * abs(steep) + ratio * _of(self.slow, self.bend_high) * self.fall1
        low = p * flat - step * abs(flat) + ratio * _of(self.slow, self.bend_low) * self.fall2
        return self.half * (abs(in_x) + 0.5 * self.half * second) + np.maximum(high * self.up, -low * self.down)


def _of(second: Array, both: Array) -> Array:
    """The second user's row where ``second`` holds, else the first's."""
    return np.where(second, both[1], both[0])


def _sum(both: Array) -> Array:
    return both[0] + both[1]
