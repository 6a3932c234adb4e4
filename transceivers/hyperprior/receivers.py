"""What becomes of coded pictures at a receiver: the judges that bit errors are measured with (:mod:`flips`).

A data user scores the picture, by 1 - MS-SSIM, mean squared error and PSNR; a semantic user the class, 1 where it is
wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from semcom_gym.envs.arrays import Array
from semcom_gym.transceivers import metrics, pixels
from semcom_gym.transceivers.coding import hevc
from semcom_gym.transceivers.hyperprior import coding
from semcom_gym.transceivers.hyperprior.flips import Judge, Payload
from semcom_gym.transceivers.hyperprior.network import Hyperprior

FIGURES = {"data": ("distortion", "mse", "psnr_db"), "semantic": ("distortion",)}
"""Of each user."""
Score = Callable[[int, Tensor], Array]
"""Figures (m, names) of picture k as it was received m times, (m, 3, H, W) in [0, 1]."""


def streams(codec: Hyperprior, images: Tensor, rate: float) -> list[coding.Stream]:
    """Streams of images, uint8 (n, 3, H, W), at a rate index."""
    return [coding.encode(codec, image, rate) for image in images]


def payloads(sent: Sequence[coding.Stream]) -> list[Payload]:
    """Hyper-latents first, then the latents."""
    return [(stream.hyper, stream.main) for stream in sent]


@torch.no_grad()
def quality(images: Tensor) -> Score:
    """The score of a data user. images: what was sent, uint8 (n, 3, H, W), 176 pixels a side or more."""

    def score(k: int, shown: Tensor) -> Array:
        original = pixels.scaled(images[k], shown.device).expand_as(shown)
        harm = 1.0 - metrics.ms_ssim(shown, original)
        found = torch.stack((harm, metrics.mse(shown, original), metrics.psnr_db(shown, original)), 1)
        return found.double().cpu().numpy()

    return score


@torch.no_grad()
def shown(codec: Hyperprior, images: Tensor, rate: float) -> Tensor:
    """Images (n, 3, H, W) in [0, 1] as they come out of the codec at a rate index, without errors."""
    return codec.reconstruct(codec.quantised(images, images.new_full((len(images),), rate))).clamp(0.0, 1.0)


def recognition(network: nn.Module, labels: Tensor) -> Score:
    """The score of a semantic user. network: logits from what was received. labels: int64 (n,)."""
    where = next(network.parameters()).device

    @torch.no_grad()
    def score(k: int, shown: Tensor) -> Array:
        wrong: Array = (network(shown.to(where)).argmax(1).cpu() != labels[k]).double().numpy()[:, None]
        return wrong

    return score


def of_codec(
    codec: Hyperprior, sent: Sequence[coding.Stream], reconstruct: Callable[[Tensor], Tensor], score: Score
) -> Judge:
    """Of streams of the hyper-prior codec. reconstruct: what follows the entropy decoder, latents (m, M, h, w) to what
    ``score`` takes. The entropy decoder gives up where it can use nothing of a stream: all latents are 0.
    """

    @torch.no_grad()
    def judge(k: int, received: Sequence[Payload]) -> tuple[Array, Array]:
        arrived = [dataclasses.replace(sent[k], hyper=hyper, main=main) for hyper, main in received]
        decoded = [coding.decode_latents(codec, stream) for stream in arrived]
        latents = torch.stack([latents for latents, _ in decoded])
        gave_up = np.array([status is coding.Status.DAMAGED and not bool(found.any()) for found, status in decoded])
        return score(k, reconstruct(latents)), gave_up

    return judge


def of_hevc(height: int, width: int, score: Score) -> Judge:
    """Of payloads of HEVC intra frames of a size; a picture that the decoder gives up is mid grey."""

    @torch.no_grad()
    def judge(k: int, received: Sequence[Payload]) -> tuple[Array, Array]:
        decoded = [hevc.decode(payload, height, width) for (payload,) in received]
        shown = pixels.scaled(torch.from_numpy(np.stack([image for image, _ in decoded])))
        return score(k, shown), np.array([not delivered for _, delivered in decoded])

    return judge
