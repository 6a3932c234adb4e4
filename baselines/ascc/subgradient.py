"""Algorithm 1 of the MU-ASCC paper: every user's source rate by subgradient descent on the interpolated tables (26).

Where this departs from the print: line 6 adds the subgradient, which ascends and so never leaves R^1; the text
subtracts it. The step is projected on (25), and taken in R / R^N, as derivatives per bit are some 1e-6. The paper
leaves the first step of the line search open: here it would cross the whole range. Users are independent, so all
descend at once in arrays.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.baselines.ascc import relaxed
from semcom_gym.envs.arrays import Array, falling
from semcom_gym.envs.ascc import physics, rates
from semcom_gym.envs.ascc.instance import Params

SUFFICIENT = 0.1  # share of the fall along the subgradient that a step must attain
SHRINK = 0.5
STEPS = SHRINK ** np.arange(40.0)[:, None]  # of the line search, as shares of the range
TOLERANCE = 1e-7  # epsilon
ITERATIONS = 200


def rates_of(params: Params, user: int) -> Array:
    """Source rates R^1 < ... < R^N of a user's table."""
    return np.asarray(params.curve_table[0, user, : int(params.rate_counts[user])])


def to_index(params: Params, rate: Array) -> Array:
    """Rate indices (..., K) of rates (..., K), linear between two codecs, as lambda_i in (27)-(30)."""
    users = range(params.num_users)
    return np.stack([np.interp(rate[..., i], t := rates_of(params, i), np.arange(len(t))) for i in users], axis=-1)


def descend(params: Params, sinr: Array) -> Array:
    """Rate indices (K,), between two codecs as a rule, by Algorithm 1 at SINRs (K,)."""
    first, last = params.curve_table[0, :, 0], params.curve_table[0, :, -1]
    low = first / last

    def value(share: Array) -> Array:
        return physics.distortion(params, sinr, to_index(params, share * last))

    share, now = low, value(low[None])[0]
    open_ = np.ones(len(low), bool)
    for _ in range(ITERATIONS):
        slope = subgradient(params, sinr, to_index(params, share * last)) * last
        trial = np.clip(share - STEPS * np.sign(slope), low, 1.0)
        harm = value(trial)
        enough = harm <= now - SUFFICIENT * slope * (share - trial)
        taken = np.argmax(enough, axis=0), np.arange(len(low))
        moved = open_ & enough.any(axis=0) & (harm[taken] < now)
        open_ = moved & (now - harm[taken] > TOLERANCE * now)
        share, now = np.where(moved, trial[taken], share), np.where(moved, harm[taken], now)
        if not open_.any():
            break
    return to_index(params, share * last)


def subgradient(params: Params, sinr: Array, index: Array) -> Array:
    """(31): the derivative of the distortion (26) by the rate [1/bit], (K,); at a codec the mean of both sides."""
    last = params.rate_counts - 1.0
    right = np.minimum(np.floor(index), last - 1.0)
    left = np.maximum(np.ceil(index) - 1.0, 0.0)
    return 0.5 * (_derivative(params, sinr, index, left) + _derivative(params, sinr, index, right))


def _derivative(params: Params, sinr: Array, index: Array, segment: Array) -> Array:
    """Derivative by the rate of (26) with the straight lines between codecs ``segment`` and ``segment`` + 1."""
    table, user = params.curve_table, np.arange(len(index))
    start, end = (table[:, user, (segment + i).astype(int)] for i in (0, 1))
    rise = (end - start) / (end[0] - start[0])  # of every column, per bit
    rate, _, channel, slope, midpoint = start + (index - segment) * (end - start)
    code_rate = rate / params.channel_uses
    x, root = relaxed.argument(sinr, code_rate, params.blocklength)
    per_code_rate = relaxed.hazard(x) * np.sqrt(params.blocklength) / root * rates.LN2 - 1.0 / code_rate
    bit_error = rates.log10_bit_error(sinr, code_rate, params.blocklength)
    exponent = rise[3] * (midpoint - bit_error) + slope * (rise[4] - per_code_rate / (params.channel_uses * rates.LN10))
    share = falling(slope * (midpoint - bit_error))
    return rise[1] + rise[2] * share - channel * share * (1.0 - share) * exponent
