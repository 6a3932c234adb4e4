"""Accuracy of a classifier over a channel, and eta(o): accuracy against the share of features that is dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from semcom_gym.envs.arrays import Array
from semcom_gym.transceivers import pixels
from semcom_gym.transceivers.classifier.network import Classifier, kept


@torch.no_grad()
def features(network: Classifier, images: Tensor) -> Tensor:
    """Pooled features (n, K), on the CPU, of images uint8 (n, 3, H, W).

    They depend on no link, so that one pass through the convolutions serves every point of a measurement.
    """
    network.eval()
    where = next(network.parameters()).device
    return torch.cat([network.pooled(network.maps(part)).cpu() for part in pixels.batches(images, where)])


@torch.no_grad()
def accuracy(
    network: Classifier, pooled: Tensor, labels: Tensor, sent: Tensor | None, snr_db: float, *, seed: int = 0
) -> dict[str, float]:
    """Share of images that the receiver names rightly: ``accuracy`` and its standard ``error`` over images.

    pooled: :func:`features` of the images, (n, K). labels: int64 (n,). sent: which features are sent, boolean (K,);
    all, if None. The noise is the same for every mask and, but for its power, every SNR, so that differences between
    points are not those of the draw. Raises ValueError for labels or a mask that do not fit.
    """
    _check(pooled, labels)
    network.eval()
    where = next(network.parameters()).device
    generator = torch.Generator(where)
    right = []
    for k, (part, known) in enumerate(zip(pooled.split(pixels.BATCH), labels.split(pixels.BATCH), strict=True)):
        generator.manual_seed(pixels.noise_seed(seed, k))
        told = torch.full((len(part),), float(snr_db), device=where)
        mask = None if sent is None else sent.to(where)
        logits = network.classify(part.to(where)[..., None, None], told, mask, generator=generator)
        right.append(logits.argmax(1).cpu() == known)
    return share(torch.cat(right))


def eta(
    network: Classifier,
    order: Array,
    ratios: Sequence[float],
    pooled: Tensor,
    labels: Tensor,
    snr_db: float,
    *,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Points of eta(o): ``ratio`` o, features ``kept``, ``snr_db``, ``accuracy`` and its ``error``.

    order: features, the most important first, (K,). ratios: shares to drop, in [0, 1]. An even number of features is
    kept, at least 2, and o is the share really dropped; ratios that come to the same number make one point. The other
    arguments are those of :func:`accuracy`. Raises ValueError for an order that is no permutation.
    """
    count = network.config.features
    if sorted(order.tolist()) != list(range(count)):
        raise ValueError(f"order must name each of the {count} features once")
    points = []
    for number in sorted({kept(ratio, count) for ratio in ratios}, reverse=True):
        mask = sent(order, number)
        found = accuracy(network, pooled, labels, mask, snr_db, seed=seed)
        points.append({"ratio": 1.0 - number / count, "kept": number, "snr_db": float(snr_db), **found})
    return points


def sent(order: Array, number: int) -> Tensor:
    """The mask, boolean (K,), that keeps the first ``number`` features of an order."""
    mask = torch.zeros(len(order), dtype=torch.bool)
    mask[torch.from_numpy(order[:number].copy())] = True
    return mask


def share(right: Tensor) -> dict[str, float]:
    """``accuracy`` and its standard ``error`` from which answers were right, boolean (n,)."""
    value = float(right.double().mean())
    return {"accuracy": value, "error": math.sqrt(value * (1.0 - value) / (len(right) - 1))}


def _check(pooled: Tensor, labels: Tensor) -> None:
    if len(pooled) < 2:
        raise ValueError(f"a mean with an error needs at least 2 images, got {len(pooled)}")
    if labels.dtype != torch.int64 or tuple(labels.shape) != (len(pooled),):
        raise ValueError(f"labels must be int64 ({len(pooled)},), got {labels.dtype} of shape {tuple(labels.shape)}")
