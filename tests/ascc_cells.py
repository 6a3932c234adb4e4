"""What the tests of ASCC share: instances, and the best decision of two users by brute force."""

from __future__ import annotations

import numpy as np
import scipy.special

from semcom_gym import envs

PROBLEM = envs.problem("ascc")


def cells(n: int, preset: str = "default", **overrides: object):
    params = PROBLEM.preset(preset, **overrides)
    return params, PROBLEM.sample_split(params, "validation", n)


def brute_force(params, instance, beams: int = 40, powers: int = 41, zooms: int = 4) -> float:
    """The least objective of one instance of two users over a grid of both beams, the power split and all codecs.

    No duality and no MMSE: a beam is cos(a) e_1 + exp(j b) sin(a) e_2 in an orthonormal basis of the channels, with
    ``beams`` values of a and of b, and less power in a beam is never better. Then ``zooms`` finer grids around the
    best point. Beams that another one beats in both own gain and leakage are left out, which loses nothing.
    """
    assert params.num_users == 2
    assert len(instance) == 1
    channel = (instance.channel_re + 1j * instance.channel_im)[0]
    first = channel[0] / np.linalg.norm(channel[0])
    second = channel[1] - first * np.vdot(first, channel[1])
    coordinate = np.conj(channel) @ np.stack([first, second / np.linalg.norm(second)], axis=1)  # h_k^H e_m
    middle = np.array([[np.pi / 4, np.pi]] * 2)  # a and b of the beam of either user
    reach = np.array([np.pi / 4, np.pi])
    share, half = 0.5, 0.5
    best = np.inf
    for _ in range(1 + zooms):
        place, gain = zip(*(_beams(coordinate, user, middle[user], reach, beams) for user in (0, 1)), strict=True)
        split = np.clip(np.linspace(share - half, share + half, powers), 0.0, 1.0)
        p = params.max_power_w * np.stack([split, 1.0 - split])[:, None, None, :]
        own = [gain[0][:, 0][:, None, None], gain[1][:, 0][None, :, None]]
        leak = [gain[1][:, 1][None, :, None], gain[0][:, 1][:, None, None]]  # user 0 hears the beam of user 1
        value = sum(
            params.weight[user] * least_distortion(params, user, p[user] * own[user] / (1 + p[1 - user] * leak[user]))
            for user in (0, 1)
        )
        here = np.unravel_index(np.argmin(value), value.shape)
        if value[here] < best:
            best, share = value[here], split[here[2]]
            middle = np.stack([place[0][here[0]], place[1][here[1]]])
        reach, half = reach / 8, half / 8
    return float(best)


def _beams(coordinate, user, middle, reach, count):
    """(a, b) and (own gain, leakage) of the grid of a user's beams around a middle, without those that are beaten."""
    axes = [np.linspace(m - r, m + r, count) for m, r in zip(middle, reach, strict=True)]
    a, b = (grid.ravel() for grid in np.meshgrid(*axes))
    beam = np.stack([np.cos(a), np.exp(1j * b) * np.sin(a)])
    gain = np.abs(coordinate @ beam) ** 2
    own, leak = gain[user], gain[1 - user]
    order = np.lexsort((leak, -own))  # the strongest first; a weaker one must leak less than all before it
    low = np.minimum.accumulate(leak[order])
    kept = order[np.concatenate([[True], leak[order][1:] < low[:-1]])]
    return np.stack([a, b], axis=1)[kept], np.stack([own, leak], axis=1)[kept]


def least_distortion(params, user: int, sinr):
    """(12), (13) at the best codec of a user, written out once more: every codec in turn."""
    capacity = np.log2(1.0 + sinr)
    spread = np.sqrt((1.0 - (1.0 + sinr) ** -2.0).clip(1e-30)) * np.log2(np.e)
    least = np.full(np.shape(sinr), np.inf)
    for rate, source, channel, slope, midpoint in params.tables[int(params.semantic[user])].columns:
        code_rate = rate / params.channel_uses
        lost = scipy.special.log_ndtr(-np.sqrt(params.blocklength) * (capacity - code_rate) / spread) / np.log(10.0)
        bit_error = lost - np.log10(code_rate * params.blocklength)
        least = np.minimum(least, source + channel * scipy.special.expit(slope * (bit_error - midpoint)))
    return least
