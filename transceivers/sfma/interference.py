"""The semantic interference factor of (11), measured: which SNR a pair's distortion is worth without interference.

Let S = p |h|^2 / (b N0) be the SNR of the superposed signal. By (11) a user has Gamma = (S / 2) / (rho S / 2 + 1), so
that 1 / Gamma = rho + 2 / S: half of the power is the user's own, and without interference Gamma = S / 2. The
*reference* is a link without interference: the same network and ratio with a pair of two identical images. Its
distortion D_0(S) over the SNR is measured. A pair whose user has the distortion D at S is served as the reference is
at S', where D_0(S') = D. Equal distortion is read as equal Gamma, S' / 2 on the reference, and so

    rho = 2 / S' - 2 / S.

Put into (11), this rho gives Gamma = S' / 2 and with it the measured distortion, by construction. It is not confined to
[0, 1]: below 0 the pair does better than the reference. With p in place of p / 2 in (11), rho would be half of it.

How well S' is known depends on the slope of the reference: where its distortion has settled, a small error of D is a
large one of S'. So every point comes with that slope and with a standard error by the bootstrap over pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.optimize
import torch
from torch import Tensor, nn

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.transceivers import pixels
from semcom_gym.transceivers.sfma.network import USERS

DRAWS = 200  # of the bootstrap
FARTHEST_DB = 60.0  # no equivalent SNR beyond
STEP = 1e-9  # fall of ln D_0 to the next point where it would stand still, so that its inverse exists


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """rho at every SNR and ratio, (S, D) each.

    rho: as it comes, not confined to [0, 1]. error: its standard error over pairs. equivalent_db: S'. slope: by how
    many dB the distortion of the reference falls with a dB of SNR at S'. extended: whether S' lies outside the SNRs of
    the reference, where its curve goes on as a straight line (ln D_0 over dB).
    """

    rho: Array
    error: Array
    equivalent_db: Array
    slope: Array
    extended: Array


@torch.no_grad()
def deliver(
    network: nn.Module, pairs: Tensor, snr_db: float, share: float, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Both users' images as they arrive and as they were, (m, 2, 3, H, W) in [0, 1], batch by batch.

    pairs: uint8 (n, 2, 3, H, W). The noise is that of :func:`measure.errors`.
    """
    _check_pairs(pairs)
    network.eval()
    where = next(network.parameters()).device
    generator = torch.Generator(where)
    for k, images in enumerate(pixels.batches(pairs.flatten(0, 1), where)):
        generator.manual_seed(pixels.noise_seed(seed, k))
        both = images.unflatten(0, (-1, USERS))
        link = (both.new_full((len(both),), float(value)) for value in (snr_db, share))
        yield network(both, *link, generator), both


def equivalent_snr_db(reference: Array, reference_db: Array, distortion: Array) -> tuple[Array, Array, Array]:
    """The SNR [dB] at which the reference has each distortion (...), its slope there, and whether that is outside.

    reference (R,): distortion at the SNRs reference_db (R,), which rise. Where it does not fall, it is replaced by the
    nearest curve that does (isotonic regression of ln D_0); between points, and beyond, ln D_0 is linear in dB.
    Raises ValueError for SNRs that do not rise and a distortion that is not positive.
    """
    log, reference_db = _falling_reference(reference, reference_db)
    if not (np.asarray(distortion) > 0).all():
        raise ValueError("distortion must be positive")
    target = np.log(distortion)
    inside = np.interp(-target, -log, reference_db)
    for end, neighbour, beyond in ((0, 1, target > log[0]), (-1, -2, target < log[-1])):
        per_db = (log[neighbour] - log[end]) / (reference_db[neighbour] - reference_db[end])
        inside = np.where(beyond, reference_db[end] + (target - log[end]) / per_db, inside)
    equivalent = np.clip(inside, -FARTHEST_DB, FARTHEST_DB)
    slope = np.interp(equivalent, reference_db, -np.gradient(log, reference_db)) * 10.0 / np.log(10.0)
    return equivalent, slope, (target > log[0]) | (target < log[-1])


def rho(snr_db: Array, equivalent_db: Array) -> Array:
    """2 / S' - 2 / S, the interference factor by (11)."""
    return 2.0 * (10.0 ** (-np.asarray(equivalent_db) / 10.0) - 10.0 ** (-np.asarray(snr_db) / 10.0))


def sinr(snr_db: Array, factor: Array) -> Array:
    """Gamma of (11) at the SNR of the superposed signal, where rho is ``factor``."""
    return 1.0 / (np.asarray(factor) + 2.0 * 10.0 ** (-np.asarray(snr_db) / 10.0))


def estimate(
    distortion: Array, snrs_db: Array, reference: Array, reference_db: Array, *, seed: int = 0, draws: int = DRAWS
) -> Estimate:
    """rho of one kind of pairs at all SNRs and ratios, with errors.

    distortion (S, D, n): of the same user in n pairs. reference (R, D, n): of the same images without interference.
    draws: of the bootstrap, which takes pairs of both together. Raises ValueError, TypeError for what does not fit.
    """
    distortion, reference = np.asarray(distortion, float), np.asarray(reference, float)
    snrs_db = np.asarray(snrs_db, float)
    validate.integer("draws", draws, low=2)
    if distortion.ndim != 3 or reference.ndim != 3 or distortion.shape[1:] != reference.shape[1:]:
        raise ValueError(
            "distortion (S, D, n) and reference (R, D, n) must have the same ratios and images, "
            f"got {distortion.shape} and {reference.shape}"
        )
    if snrs_db.shape != distortion.shape[:1] or distortion.shape[2] < 2:
        raise ValueError(f"{len(snrs_db)} SNRs for distortion of shape {distortion.shape}; at least 2 pairs are needed")
    n = distortion.shape[2]
    chosen = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=draws) / n
    found = _of_means(distortion.mean(2), snrs_db, reference.mean(2), reference_db)
    again = [_of_means(distortion @ share, snrs_db, reference @ share, reference_db)[0] for share in chosen]
    return Estimate(found[0], np.std(again, axis=0, ddof=1), *found[1:])


def of_pairs(distortion: Array, snrs_db: Array, reference: Array, reference_db: Array) -> Array:
    """rho of every pair by itself, confined to [0, 1], mean over SNRs and ratios, (n,); arguments as in `estimate`.

    A single pair's distortion carries the noise of its own draw, so these spread more than pairs differ.
    """
    each = zip(np.moveaxis(distortion, 2, 0), np.moveaxis(reference, 2, 0), strict=True)
    alone = [_of_means(own, snrs_db, base, reference_db)[0] for own, base in each]
    return np.asarray(np.clip(alone, 0.0, 1.0).mean((1, 2)))


def _of_means(
    distortion: Array, snrs_db: Array, reference: Array, reference_db: Array
) -> tuple[Array, Array, Array, Array]:
    """rho, S', slope and extended, (S, D) each, of means (S, D) and (R, D)."""
    columns = [equivalent_snr_db(reference[:, k], reference_db, distortion[:, k]) for k in range(distortion.shape[1])]
    equivalent, slope, extended = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    return rho(np.asarray(snrs_db, float)[:, None], equivalent), equivalent, slope, extended


@torch.no_grad()
def leakage(network: nn.Module, pairs: Tensor, again: Tensor, snr_db: float, share: float, seed: int = 0) -> float:
    """The share of what varies in the first user's image that the partner decides, a diagnostic beside rho.

    pairs, again: uint8 (n, 2, 3, H, W), pairs of one kind with the same first images and other partners. It is
    E Var(x_hat_i | x_i) over Var(x_hat_i): half the mean squared change of x_hat_i when the partner changes, the noise
    stays and all is encoded again, over its variance between pairs. 0 where the partner leaves no trace; traces in
    proportion to x_i itself are none of it. Raises ValueError for pairs of other first images.
    """
    _check_pairs(pairs)
    if pairs.shape != again.shape or not torch.equal(pairs[:, 0], again[:, 0]):
        raise ValueError("pairs and again must have the same first images")
    if len(pairs) < 2:
        raise ValueError("a variance between pairs needs at least 2 of them")
    first, second = (
        torch.cat([received[:, 0].cpu() for received, _ in deliver(network, part, snr_db, share, seed)]).double()
        for part in (pairs, again)
    )
    changed = 0.5 * float((first - second).square().mean())
    spread = float(first.var(0).mean())
    if spread == 0.0:
        raise ValueError("the network makes the same image of every pair: there is nothing to compare")
    return changed / spread


def _falling_reference(reference: Array, reference_db: Array) -> tuple[Array, Array]:
    """ln D_0, strictly falling, and its SNRs."""
    reference, reference_db = np.asarray(reference, float), np.asarray(reference_db, float)
    if reference_db.ndim != 1 or len(reference_db) < 2 or reference.shape != reference_db.shape:
        raise ValueError(f"the reference needs one distortion for each of 2 SNRs or more, got shape {reference.shape}")
    if not (np.diff(reference_db) > 0).all():
        raise ValueError("the SNRs of the reference must rise")
    if not (reference > 0).all():
        raise ValueError("the distortion of the reference must be positive")
    log = np.asarray(scipy.optimize.isotonic_regression(np.log(reference), increasing=False).x)
    still = np.concatenate(([False], np.diff(log) >= 0.0))
    return log - STEP * np.cumsum(still), reference_db


def _check_pairs(pairs: Tensor) -> None:
    if pairs.ndim != 5 or tuple(pairs.shape[1:3]) != (2, 3) or pairs.dtype != torch.uint8:
        raise ValueError(f"pairs must be uint8 (n, 2, 3, H, W), got {pairs.dtype} {tuple(pairs.shape)}")
