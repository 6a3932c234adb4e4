"""Convolutional encoder and decoder of DeepJSCC-NOMA, with as many symbols as the Swin Transformers.

The layers are those of deep JSCC here, five convolutions each way with the state of the link set on all of them but
the last of the decoder (see ``deepjscc.network``); the stride of the innermost takes the feature maps to the resolution
that the other schemes send.
"""

from __future__ import annotations

from torch import Tensor, nn

from semcom_gym.transceivers.deepjscc.network import KERNEL, Block, initialise


class Encoder(nn.Module):
    """Images (n, 3, H, W) to features (n, H', W', C'), H' = H / (4 stride)."""

    def __init__(self, width: int, features: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        sizes = ((3, half, 2), (half, width, 2), (width, width, 1), (width, width, 1), (width, features, stride))
        self.blocks = nn.ModuleList(Block(_convolution(i, o, s), o) for i, o, s in sizes)

    def forward(self, images: Tensor, link: Tensor) -> Tensor:
        """Images around 0, link (n, 2)."""
        for block in self.blocks:
            images = block(images, link)
        return images.movedim(1, -1)


class Decoder(nn.Module):
    """Features (n, H', W', C') to logits of images (n, 3, H, W)."""

    def __init__(self, width: int, features: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        sizes = ((features, width, stride), (width, width, 1), (width, width, 1), (width, half, 2))
        self.blocks = nn.ModuleList(Block(_deconvolution(i, o, s), o) for i, o, s in sizes)
        self.output = _deconvolution(half, 3, 2)

    def forward(self, features: Tensor, link: Tensor) -> Tensor:
        """Link (n, 2)."""
        features = features.movedim(-1, 1)
        for block in self.blocks:
            features = block(features, link)
        return self.output(features)


def _convolution(maps_in: int, maps_out: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(maps_in, maps_out, KERNEL, stride, KERNEL // 2)
    initialise(layer)
    return layer


def _deconvolution(maps_in: int, maps_out: int, stride: int) -> nn.ConvTranspose2d:
    """Undoes the size of a convolution of that stride."""
    layer = nn.ConvTranspose2d(maps_in, maps_out, KERNEL, stride, KERNEL // 2, stride - 1)
    initialise(layer)
    return layer
