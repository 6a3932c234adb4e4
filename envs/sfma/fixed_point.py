"""The greatest compression ratio of every group that equals the ratio its rate leaves time for."""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import Array, Batch, at_least, falling, frozen, namespace, rounding

STEPS = 8  # of Newton's method; most groups need three or four
FEW = 64  # groups below which leaving out those that are done does not pay
SCAN, SCANS = 64, 7


@dataclasses.dataclass(frozen=True)
class Reach(Batch):
    """The ratio min_u R_u(delta) T-bar_u / Q_u up to which groups are in time at the rate they have at ratio delta.

    Groups are the last axis: (C,), noise and scale of users (2, C). rest: the exponent of (10) at ratio 0.
    """

    rest: Array
    slope: Array
    rho_min: Array
    span: Array
    noise: Array
    scale: Array

    def at(self, rows: Array) -> Reach:
        """Those of some groups."""
        return self.map(lambda x: x[..., rows])

    def __call__(self, delta: Array) -> tuple[Array, Array]:
        """The ratio reached at ``delta`` and Newton's next guess at where the two are equal."""
        xp = namespace(delta)
        low = falling(self.slope * delta + self.rest)
        fall = self.span * low
        x = fall + self.rho_min + self.noise
        reach = self.scale * xp.log1p(1.0 / x)
        steep = self.scale / (x + x * x)
        rise = frozen(self.slope * fall * (1.0 - low) * xp.where(reach[0] <= reach[1], steep[0], steep[1]))
        reach = xp.minimum(reach[0], reach[1])
        return reach, delta - (delta - reach) / (1.0 - rise * (rise < 0.9))

    def most(self) -> Array:
        """What no ratio reaches more than."""
        reach = self.scale * namespace(self.scale).log1p(1.0 / (self.rho_min + self.noise))
        return namespace(reach).minimum(reach[0], reach[1])


def greatest(reach: Reach, floor: Array, top: Array) -> Array:
    """The greatest fixed point (C,) of a rising map in [floor, top]: ``top`` if the map is not below it there.

    Plain steps from above never pass it. Newton's may, and then it is between the two. Once most groups are done the
    others go on alone.
    """
    xp = namespace(top)
    close = 0.1 * rounding(top) ** 0.5  # one more step of Newton's reaches the precision
    delta = above = xp.minimum(xp.maximum(reach.most(), floor), top)
    below, moving = floor, xp.ones_like(delta, dtype=xp.bool)
    found, rows = None, xp.arange(delta.shape[0], device=delta.device)
    for _ in range(STEPS):
        reached, newton = reach(delta)
        met = reached >= delta
        below, above = xp.where(met, delta, below), xp.where(met, above, xp.minimum(above, reached))
        last, delta = delta, xp.where(moving, xp.maximum(xp.minimum(newton, above), below), delta)
        moving = moving & (abs(delta - last) > close * last)
        left = int(xp.count_nonzero(moving))
        if left == 0:
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
        best = xp.max(xp.where(each(tried)[0] >= tried, tried, best), axis=-1, keepdims=True)
        width = width / SCAN
    return best[:, 0]
