"""What decisions need of instances that are met many times, worked out once."""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import Array, Batch, in_order, namespace, turned
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Links

OF_PAIR = (*physics.INTERFERENCE, "similarity")  # the fields of Links with an entry per pair
OF_USERS = ("snr", "source_bit", "spare_s", "level", "tilt")  # and with one for each of its users


@dataclasses.dataclass(frozen=True)
class Prepared(Batch):
    """Numbers of every candidate pair, side by side in memory."""

    # (n, M, F) the fields of Links, those of users twice, then the least ratio of ``limits.ratio_floor``
    numbers: Array
    # (n, M) the edge set (21)
    feasible: Array

    @classmethod
    def of(cls, params: Params, instance: Instance) -> Prepared:
        """Of the instances of a batch."""
        link = physics.links(params, instance)
        xp = namespace(instance.gain)
        single = [getattr(link, name) for name in OF_PAIR]
        double = [getattr(link, name) for name in OF_USERS]
        last = limits.ratio_floor(params, link)
        numbers = xp.concat([xp.stack(single, axis=-1), *double, last[..., None]], axis=-1)
        return cls(in_order(numbers), physics.feasible_pairs(params, instance))

    def chosen(self, rows: Array, pair: Array) -> tuple[Links, Array]:
        """The links and least ratios of pairs (n, K) of the instances at ``rows`` (n,), as ``physics.links`` has them:
        stored users first and instances last.
        """
        xp = namespace(pair)
        count, size = self.numbers.shape[1:]
        place = turned(pair) + count * rows
        found = xp.take(xp.reshape(self.numbers, (-1, size)), xp.reshape(place, (-1,)), axis=0)
        each = xp.reshape(in_order(turned(found)), (size, *place.shape))  # (F, K, n)
        first = len(OF_PAIR)
        fields = {name: turned(each[k]) for k, name in enumerate(OF_PAIR)}
        for k, name in enumerate(OF_USERS):
            fields[name] = turned(each[first + 2 * k : first + 2 * k + 2])
        return Links(**fields), turned(each[-1])
