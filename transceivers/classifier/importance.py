"""Semantic importance of features (19) and the orders in which they are dropped.

(19) weighs feature map k for class c by the mean over its positions of the slope d y_c / d A^k_ij of the class's value
before the softmax, here also averaged over images. A slope alone does not say how much a feature does: a map whose
values are a hundred times smaller, with weights behind it a hundred times larger, has a hundred times the slope and
the same effect. What a feature changes is slope times spread. The channel layer standardises the pooled feature,
z_k = (p_k - mean) / spread_k, and as p_k is the mean of A^k over H W positions,

    mean over images of d y_c / d z_k = H W spread_k omega_k^c,

so that slope times spread is, up to a factor that all features share, the importance of the value that is sent.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.transceivers import pixels
from semcom_gym.transceivers.classifier.network import Classifier

RULES = ("paper", "spread", "random", "reverse")
TOLD_DB = 5.0
"""SNR that the receiver is told while slopes are taken: inside the range that networks are trained for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Importance:
    """Of K features for C classes: ``weights`` (C, K), omega of (19); ``spread`` (K,), standard deviation of the
    pooled feature over images.
    """

    weights: Array
    spread: Array

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.spread.shape != self.weights.shape[1:]:
            raise ValueError(
                f"importance needs weights (C, K) and spread (K,), got {self.weights.shape} and {self.spread.shape}"
            )
        if not (np.isfinite(self.weights).all() and np.isfinite(self.spread).all()):
            raise ValueError("importance has a value that is not finite")


def importance(network: Classifier, images: Tensor, snr_db: float = TOLD_DB) -> Importance:
    """(19) over ``images``, uint8 (n, 3, H, W): slopes of the logits without noise, all features sent.

    snr_db: what the receiver is told. Raises ValueError for fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"the spread of features needs at least 2 images, got {len(images)}")
    network.eval()
    where = next(network.parameters()).device
    total: Tensor | None = None
    features = []
    for part in pixels.batches(images, where):
        with torch.no_grad():
            maps = network.maps(part)
        slopes = _slopes(network, maps, snr_db)
        total = slopes if total is None else total + slopes
        features.append(network.pooled(maps).double().cpu())
    assert total is not None
    return Importance((total / len(images)).numpy(), torch.cat(features).std(0).numpy())


def ranking(found: Importance, rule: str = "spread", seed: int = 0) -> Array:
    """Indices of features (K,), the most important first; ties by index, so that both ends agree.

    rule: ``paper`` (mean over classes of abs(omega)), ``spread`` (largest over classes of abs(omega), times spread),
    ``random`` (by ``seed``) or ``reverse`` (``spread`` from its end, as a check). Raises ValueError for another one.
    """
    validate.choice("rule", rule, RULES)
    if rule == "random":
        return np.random.default_rng(seed).permutation(len(found.spread))
    if rule == "paper":
        return np.argsort(-np.abs(found.weights).mean(0), kind="stable")
    order = np.argsort(-np.abs(found.weights).max(0) * found.spread, kind="stable")
    return order[::-1].copy() if rule == "reverse" else order


def _slopes(network: Classifier, maps: Tensor, snr_db: float) -> Tensor:
    """Sum over images of the mean over positions of d y_c / d A^k_ij, float64 (C, K), on the CPU."""
    maps = maps.detach().requires_grad_()
    told = torch.full((len(maps),), float(snr_db), device=maps.device)
    logits = network.decode(network.modulate(network.pooled(maps)), told)
    rows = []
    for value in logits.sum(0):
        slope = torch.autograd.grad(value, maps, retain_graph=True)[0]
        rows.append(slope.double().mean((2, 3)).sum(0))
    return torch.stack(rows).cpu()
