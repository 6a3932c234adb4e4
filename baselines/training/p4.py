"""P4 of the training paper (19), directly: powers and bandwidths of least upload energy before given deadlines.

With ratios, frequencies and the makespan fixed, device n has t_n seconds for rho_n d D bits. At a fixed rate the
energy falls with the bandwidth, so every rate constraint (33a) is tight, P4 is convex in the bandwidths, and one price
decides it. Efficiencies below are in nats, u = ln(1 + S); (33a) as printed has its ratio upside down and lacks D.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.special

from semcom_gym.envs.arrays import Array, Batch
from semcom_gym.envs.training.instance import Instance, Params

BISECTIONS = 60
PRICES = 1e-40  # of the lowest price to the highest: nothing an optimum can tell from zero
BRANCH = 1e-6  # below it Lambert's W is too near its branch point to start from


@dataclasses.dataclass(frozen=True)
class Upload(Batch):
    """What P4 is given, for n instances of N devices."""

    # (n, N) payload rho d D [nat], and the time for it [s]
    load: Array
    seconds: Array
    # (n, N) N0 / g [W/Hz]: what a unit of SNR costs on a hertz; pmax [W]
    noise: Array
    cap: Array
    # (n, N) efficiencies u [nat/s/Hz]: least, by (33b) and the total bandwidth; largest, by (16a) and (33a)
    low: Array
    high: Array
    # (n,) total bandwidth [Hz]
    total: Array

    @property
    def rate(self) -> Array:
        """(n, N) r_min [nat/s]."""
        return self.load / self.seconds


def upload(params: Params, instance: Instance, ratio: Array, seconds: Array, min_snr: Array) -> Upload:
    """P4 for ratios (n, N), upload times [s] and least SNRs (33b), all (n, N)."""
    load = ratio * (params.round_bit * np.log(2.0))
    noise = params.noise_psd_w_hz / instance.gain
    high = fastest(load / seconds * noise / params.max_power_w)
    low = np.maximum(np.log1p(min_snr), load / seconds / params.total_bandwidth_hz)
    total = np.full(len(instance), params.total_bandwidth_hz)
    cap = np.full_like(noise, params.max_power_w)
    return Upload(load, seconds, noise, cap, np.minimum(low, high), high, total)


def direct(task: Upload) -> tuple[Array, Array]:
    """Powers [W] and bandwidths [Hz] of P4: Lambert's W at a bandwidth price, one bisection on the price."""

    def respond(price: Array) -> tuple[Array, Array]:
        return tight(task, np.clip(worth(price[:, None] / weight), task.low, task.high))

    weight = task.noise * task.seconds
    return clear(respond, np.max(weight * cost(task.high), axis=-1), task.total)


def tight(task: Upload, nats: Array) -> tuple[Array, Array]:
    """Powers [W] and bandwidths [Hz] that meet every r_min at efficiencies u [nat/s/Hz]."""
    bandwidth = task.rate / nats
    return np.minimum(task.noise * bandwidth * np.expm1(nats), task.cap), bandwidth


def clear(respond: Callable[[Array], tuple[Array, Array]], high: Array, total: Array) -> tuple[Array, Array]:
    """Powers and bandwidths at the price (55) at which bandwidths (n, N) that fall with it add up to ``total`` (n,).

    high (n,): a price at which they do not exceed it. Where they jump over it at a price, the mixture of both sides
    that adds up: P7 is convex, so a mixture of two solutions at one price is a third. Price 0 where all fits.
    """
    low = PRICES * high
    for _ in range(BISECTIONS):
        price = np.sqrt(low) * np.sqrt(high)
        over = respond(price)[1].sum(-1) > total
        low, high = np.where(over, price, low), np.where(over, high, price)
    (cheap_w, cheap_hz), (dear_w, dear_hz) = respond(low), respond(high)
    most, least = cheap_hz.sum(-1), dear_hz.sum(-1)
    share = np.where(most > total, np.clip((total - least) / np.maximum(most - least, 1e-300), 0.0, 1.0), 1.0)
    mixed = share[:, None]
    return mixed * cheap_w + (1.0 - mixed) * dear_w, mixed * cheap_hz + (1.0 - mixed) * dear_hz


def cost(nats: Array) -> Array:
    """(1 + S) ln(1 + S) - S at u = ln(1 + S)."""
    return nats * np.exp(nats) - np.expm1(nats)


def worth(price: Array) -> Array:
    """The u at which :func:`cost` is ``price`` > 0: 1 + W((price - 1) / e), polished."""
    nats: Array = 1.0 + scipy.special.lambertw((price - 1.0) / np.e).real
    nats = np.where(price < BRANCH, np.sqrt(2.0 * price), nats)
    for _ in range(2):
        nats = nats - (cost(nats) - price) / (nats * np.exp(nats))
    return nats


def fastest(share: Array) -> Array:
    """The u > 0 with u / (e^u - 1) = ``share``: the largest at which a power cap leaves a rate in reach; 0 if none.

    share: the rate [nat/s], over the rate that the cap would give on unlimited bandwidth.
    """
    inside = np.minimum(share, 1.0)
    nats: Array = -inside - scipy.special.lambertw(-inside * np.exp(-inside), -1).real
    nats = np.where(inside > 1.0 - BRANCH, 2.0 * (1.0 - inside), nats)
    for _ in range(2):
        slope = np.maximum(np.exp(nats) - 1.0 / inside, 1e-300)
        nats = nats - (np.expm1(nats) - nats / inside) / slope
    return nats
