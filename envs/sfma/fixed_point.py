"""The greatest compression ratio of every group that equals the ratio its rate leaves time for."""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import Array, Batch, at_least, falling, frozen, namespace, rounding

STEPS, FEWER_STEPS = 8, 5  # of Newton's method, and in float32; most groups need three or four
FINE = 1e-10  # rounding of float64
LAST = 32  # groups on which a scan takes less than more steps; its resolution is that of float32
FEW = 64  # groups below which leaving out those that are done does not pay
SCAN, SCANS = 64, 7


def lesser(x: Array) -> Array:
    """Minimum over a first axis of two."""
    return namespace(x).minimum(x[0], x[1])


@dataclasses.dataclass(frozen=True)
class Reach(Batch):
    """How groups send at their power and bandwidth, as functions of the ratio. The last axes are groups, any number.

    rest: the exponent of (10) at ratio 0; slope: its slope; noise (2, ...): over the received power of both users.
    pace, scale (2, ...): what ln(1 + Gamma_u) is multiplied by to give the ratio that would take a second, and the one
    that would take the time T-bar_u there is.
    """

    rest: Array
    slope: Array
    rho_min: Array
    span: Array
    noise: Array
    pace: Array
    scale: Array

    def at(self, groups: Array) -> Reach:
        """Those of some places on the last axis."""
        return self.map(lambda x: x[..., groups])

    def moved(self, further: Array, noise: Array) -> Reach:
        """With another power: what the exponent rises by, and the noise."""
        return dataclasses.replace(self, rest=self.rest + further, noise=noise)

    def capacity(self, delta: Array) -> Array:
        """ln(1 + Gamma_u) of (11), (2, ...)."""
        x = self.span * falling(self.slope * delta + self.rest) + self.rho_min + self.noise
        return namespace(x).log1p(1.0 / x)

    def reached(self, delta: Array) -> Array:
        """The ratio both users have time for at the rate they have at ``delta``: min_u R_u(delta) T-bar_u / Q_u."""
        return lesser(self.scale * self.capacity(delta))

    def delay(self, delta: Array) -> Array:
        """The delay (14) of the later user [s]."""
        return delta / lesser(self.pace * self.capacity(delta))

    def __call__(self, delta: Array) -> tuple[Array, Array]:
        """:meth:`reached`, and Newton's next guess at where it is ``delta``."""
        xp = namespace(delta)
        low = falling(self.slope * delta + self.rest)
        fall = self.span * low
        x = fall + self.rho_min + self.noise
        reach = self.scale * xp.log1p(1.0 / x)
        steep = self.scale / (x + x * x)
        rise = frozen(self.slope * fall * (1.0 - low) * xp.where(reach[0] <= reach[1], steep[0], steep[1]))
        reach = lesser(reach)
        return reach, delta - (delta - reach) / (1.0 - rise * (rise < 0.9))

    def most(self) -> Array:
        """What no ratio reaches more than."""
        return lesser(self.scale * namespace(self.scale).log1p(1.0 / (self.rho_min + self.noise)))


def greatest(reach: Reach, floor: Array, top: Array, start: Array | None = None) -> Array:
    """The greatest fixed point (C,) of a rising map in [floor, top]: ``top`` if the map is not below it there.

    Plain steps from above never pass it. Newton's may, and then it is between the two. Once most groups are done the
    others go on alone. start (C,): nothing between it and ``top`` is a fixed point.
    """
    xp = namespace(top)
    close = 0.1 * rounding(top) ** 0.5  # one more step of Newton's reaches the precision
    start = reach.most() if start is None else start
    delta = above = xp.minimum(xp.maximum(start, floor), top)
    below, moving = floor, xp.ones_like(delta, dtype=xp.bool)
    found, rows = None, xp.arange(delta.shape[0], device=delta.device)
    steps, last_few = (STEPS, 0) if rounding(top) < FINE else (FEWER_STEPS, LAST)
    for _ in range(steps):
        reached, newton = reach(delta)
        met = reached >= delta
        if above is delta and int(xp.count_nonzero(met)) == met.shape[0]:
            return delta  # all reach more than where they begin
        below, above = xp.where(met, delta, below), xp.where(met, above, xp.minimum(above, reached))
        last, delta = delta, xp.where(moving, xp.maximum(xp.minimum(newton, above), below), delta)
        moving = moving & (abs(delta - last) > close * last)
        left = int(xp.count_nonzero(moving))
        if left <= last_few:
            break
        if FEW < moving.shape[0] > 2 * left:
            if found is None:
                found = delta
            else:
                found[rows] = delta
            keep = xp.nonzero(moving)[0]
            reach, rows = reach.at(keep), rows[keep]
            delta, below, above, moving = (x[keep] for x in (delta, below, above, moving))
    if left:
        keep = xp.nonzero(moving)[0]
        delta[keep] = _scan(reach.at(keep), below[keep], above[keep])
    if found is None:
        return delta
    found[rows] = delta
    return found


def _scan(reach: Reach, below: Array, above: Array) -> Array:
    """The greatest fixed point (C,) from ``below``, where the map is not below, to ``above``, on ever finer grids.

    For the few on which Newton's method crawls: the map nearly touches the diagonal.
    """
    xp = namespace(below)
    rungs = xp.arange(SCAN + 1, dtype=below.dtype, device=below.device) / SCAN
    each = reach.map(lambda x: x[..., None])
    best, width = below[:, None], at_least(above - below, 0.0)[:, None]
    for _ in range(SCANS):
        if not bool((width > rounding(width) * best).any()):
            break
        tried = best + width * rungs
        best = xp.max(xp.where(each.reached(tried) >= tried, tried, best), axis=-1, keepdims=True)
        width = width / SCAN
    return best[:, 0]
