"""Many SINRs and distortions of the dual uplink at once: by principal minors, and by a table over the SINR.

det(I + Q G) is the sum over all sets S of users of det(G_S) times the product of their powers, and
1 + gamma_i is its ratio to the same sum without user i. Every term is positive, so nothing cancels, and a user's SINR
is q_i times a gain that does not depend on q_i.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, at_most, like, namespace
from semcom_gym.envs.ascc import duality, rates
from semcom_gym.envs.ascc.instance import Instance, Params

MOST_USERS = 7  # above it 2**K minors cost more than one inverse
OCTAVES = 20  # of 1 + SINR that the table covers, 60 dB
STEPS_LOG2 = 14  # steps per octave
_SHIFT = 52 - STEPS_LOG2
_ONE = int(np.float64(1.0).view(np.int64)) >> _SHIFT


@dataclasses.dataclass(frozen=True)
class _Sets:
    """All sets of users, as bits of their number.

    by_size: the users of the sets of 1, 2, .. users, (m, k, 1) and (m, 1, k). order (2**K,): where in that order,
    behind the empty set, a set is. with_user, outside (K, 2**K): a set with a user added, and whether that is another.
    """

    by_size: list[tuple[Array, Array]]
    order: Array
    with_user: Array
    outside: Array


@functools.cache
def _sets(users: int) -> _Sets:
    number = np.arange(1 << users)
    chosen = [[*itertools.combinations(range(users), size)] for size in range(1, users + 1)]
    place = np.array([0, *(sum(1 << user for user in each) for size in chosen for each in size)])
    by_size = [(np.array(each)[:, :, None], np.array(each)[:, None, :]) for each in chosen]
    bit = (1 << np.arange(users))[:, None]
    return _Sets(by_size, np.argsort(place), number | bit, number & bit == 0)


class Gains:
    """The gains s_i(q) = gamma_i / q_i of the uplinks of instances, for m points of powers each, (n, K, m)."""

    def __init__(self, instance: Instance) -> None:
        self.gram = duality.gram(instance)
        self.users = self.gram.shape[-1]
        self.by_minors = self.users <= MOST_USERS
        if self.by_minors:
            self.rows = self._rows()

    def _rows(self) -> Array:
        """(n, 2 K, 2**K): what a product of powers counts for in the sums with and without every user."""
        xp, sets = namespace(self.gram), _sets(self.users)
        minor = [xp.ones((len(self.gram), 1), dtype=xp.float64, device=self.gram.device)]
        for rows, columns in sets.by_size:
            minor.append(xp.real(xp.linalg.det(self.gram[:, like(rows, self.gram), like(columns, self.gram)])))
        every = xp.concat(minor, axis=1)[:, like(sets.order, self.gram)]
        every = at_least(every, 0.0)  # of a Gram matrix; rounding apart
        outside = like(sets.outside, every)
        return xp.concat([every[:, like(sets.with_user, every)] * outside, every[:, None] * outside], axis=1)

    def __len__(self) -> int:
        return len(self.gram)

    def __getitem__(self, rows: slice) -> Gains:
        part = object.__new__(Gains)
        part.gram, part.users, part.by_minors = self.gram[rows], self.users, self.by_minors
        if self.by_minors:
            part.rows = self.rows[rows]
        return part

    def constant(self, table: Array) -> Array:
        """A table of real numbers, where the gains are."""
        return like(table, namespace(self.gram).real(self.gram))

    def at(self, power: Array) -> Array:
        """Gains (n, K, m) at powers (n, K, m), or (1, K, m) that all instances share."""
        if self.by_minors:
            sums = self.rows @ _products(power)
            return sums[:, : self.users] / sums[:, self.users :]
        xp = namespace(power)
        points = xp.broadcast_to(power, (len(self.gram), *power.shape[1:])).swapaxes(1, 2)
        found = duality.uplink(self.gram[:, None], points)
        own = xp.linalg.diagonal(found.cross.real) / xp.linalg.diagonal(found.mix.real)
        return own.swapaxes(1, 2)


def _products(power: Array) -> Array:
    """(n, 2**K, m) the product of the powers of every set of users."""
    xp = namespace(power)
    n, users, points = power.shape
    product = xp.ones((n, 1 << users, points), dtype=power.dtype, device=power.device)
    for user in range(users):
        half = 1 << user
        xp.multiply(product[:, :half], power[:, user, None], out=product[:, half : 2 * half])
    return product


class Values:
    """Weighted distortion beta_i D*_i of every user at the best codec, tabulated over 1 + SINR.

    The steps are those of the leading bits of a float, so that finding one takes no logarithm.
    """

    def __init__(self, params: Params) -> None:
        edges = (np.arange(_ONE, _ONE + (OCTAVES << STEPS_LOG2) + 1) << _SHIFT).view(np.float64)
        kinds = []
        for table, best in zip(params.tables, params.best_rates, strict=True):
            chosen = table.columns[best.at(edges - 1.0)].T
            value = rates.distortion(chosen, edges - 1.0, params.channel_uses, params.blocklength)
            value[-1] = table.columns[:, 1].min()  # of any SINR, however large
            kinds.append(np.minimum.accumulate(value))
        self.size = len(edges)
        self.table = np.concat(kinds)
        self.start = (self.size * params.semantic)[:, None]
        self.weight = params.weight[:, None]

    def _step(self, sinr: Array) -> Array:
        step = ((sinr + 1.0).view(namespace(sinr).int64) >> _SHIFT) - _ONE
        return at_most(step, self.size - 2)

    def near(self, sinr: Array) -> Array:
        """Values (n, K, m) at SINRs (n, K, m), to a step."""
        place = self._step(sinr) + like(self.start, sinr)
        return like(self.weight, sinr) * like(self.table, sinr).take(place)

    def below(self, sinr: Array) -> Array:
        """Values (n, K, m) that no SINR up to the given ones, and a rounding error above, falls below."""
        place = self._step(sinr * (1.0 + 1e-9)) + (like(self.start, sinr) + 1)
        return like(self.weight, sinr) * like(self.table, sinr).take(place)


@functools.lru_cache(maxsize=8)
def values(params: Params) -> Values:
    """The table of some parameters."""
    return Values(params)
