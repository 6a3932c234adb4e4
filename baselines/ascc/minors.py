"""Many SINRs and distortions of the dual uplink at once: by principal minors, and by a table over the SINR.

det(I + Q G) is the sum over all sets S of users of det(G_S) times the product of their powers, and
1 + gamma_i is its ratio to the same sum without user i. Every term is positive, so nothing cancels, and a user's SINR
is q_i times a gain that does not depend on q_i.
"""

from __future__ import annotations

import functools

import numpy as np

from semcom_gym.envs.arrays import Array
from semcom_gym.envs.ascc import duality, rates
from semcom_gym.envs.ascc.instance import Instance, Params

MOST_USERS = 7  # above it 2**K minors cost more than one inverse
OCTAVES = 20  # of 1 + SINR that the table covers, 60 dB
STEPS_LOG2 = 14  # steps per octave
_SHIFT = 52 - STEPS_LOG2
_ONE = int(np.float64(1.0).view(np.int64)) >> _SHIFT


@functools.cache
def _sets(users: int) -> tuple[Array, Array]:
    """All sets of users as rows (2**K, K) of booleans, and for every set and user the set with that user added."""
    number = np.arange(1 << users)
    member = (number[:, None] >> np.arange(users)) & 1 == 1
    return member, number[:, None] | (1 << np.arange(users))


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
        member, with_user = _sets(self.users)
        minor = np.ones((len(self.gram), len(member)))
        for row, users in enumerate(member[1:], start=1):
            chosen = np.flatnonzero(users)
            minor[:, row] = np.linalg.det(self.gram[:, chosen[:, None], chosen]).real
        minor = np.maximum(minor, 0.0)  # of a Gram matrix; rounding apart
        outside = ~member.T
        return np.concat([minor[:, with_user.T] * outside, minor[:, None] * outside], axis=1)

    def __len__(self) -> int:
        return len(self.gram)

    def __getitem__(self, rows: slice) -> Gains:
        part = object.__new__(Gains)
        part.gram, part.users, part.by_minors = self.gram[rows], self.users, self.by_minors
        if self.by_minors:
            part.rows = self.rows[rows]
        return part

    def at(self, power: Array) -> Array:
        """Gains (n, K, m) at powers (n, K, m), or (1, K, m) that all instances share."""
        if self.by_minors:
            sums = self.rows @ _products(power)
            return sums[:, : self.users] / sums[:, self.users :]
        points = np.broadcast_to(power, (len(self.gram), *power.shape[1:])).swapaxes(1, 2)
        found = duality.uplink(self.gram[:, None], points)
        own = np.linalg.diagonal(found.cross.real) / np.linalg.diagonal(found.mix.real)
        return own.swapaxes(1, 2)


def _products(power: Array) -> Array:
    """(n, 2**K, m) the product of the powers of every set of users."""
    n, users, points = power.shape
    product = np.ones((n, 1 << users, points))
    for user in range(users):
        half = 1 << user
        np.multiply(product[:, :half], power[:, user, None], out=product[:, half : 2 * half])
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
        step = ((sinr + 1.0).view(np.int64) >> _SHIFT) - _ONE
        return np.minimum(step, self.size - 2)

    def near(self, sinr: Array) -> Array:
        """Values (n, K, m) at SINRs (n, K, m), to a step."""
        return self.weight * self.table.take(self._step(sinr) + self.start)

    def below(self, sinr: Array) -> Array:
        """Values (n, K, m) that no SINR up to the given ones, and a rounding error above, falls below."""
        return self.weight * self.table.take(self._step(sinr * (1.0 + 1e-9)) + (self.start + 1))


@functools.lru_cache(maxsize=8)
def values(params: Params) -> Values:
    """The table of some parameters."""
    return Values(params)
