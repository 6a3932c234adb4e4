"""Mutual information of what is sent and what is received: the bound (16) and the likelihood that it needs.

I(X; Y) <= I_up = E_p(x,y) log p(y|x) - E_p(x) E_p(y) log p(y|x), (16). As p(y|x) is unknown, a variational q_theta(y|x)
takes its place (CLUB, Cheng et al. 2020), fitted by the loss L_MI = -mean of log q(y_i|x_i); the bound holds as far as
q is p. The second term is taken over all pairs (x_j, y_i), j != i, of a batch.

What the bound is worth: over y = x + noise with p known, I_up is the SNR of each real value, where I is at most
0.5 ln(1 + SNR); and as the power is fixed, so is I_up. A term in it can hardly steer the transmitter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HIDDEN = 128


class Likelihood(nn.Module):
    """q_theta(y | x, snr): independent Gaussians, their means and log-variances from networks.

    The mean is x plus a network of x, since what arrives is close to what was sent. The log-variance is a network of x
    plus a line in the SNR in dB for each value, which is exact for white noise.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.mean, self.log_variance = _perceptron(size), _perceptron(size)
        self.noise = nn.Linear(1, size)
        nn.init.zeros_(self.noise.weight)
        nn.init.zeros_(self.noise.bias)

    def forward(self, x: Tensor, y: Tensor, snr_db: Tensor) -> Tensor:
        """log q(y_i | x_j, snr_i) in nats for all pairs, (n, n), rows i. x, y: (n, K). snr_db: (n,).

        Raises ValueError for shapes that do not fit.
        """
        shape = (len(x), self.size)
        if tuple(x.shape) != shape or tuple(y.shape) != shape or tuple(snr_db.shape) != shape[:1]:
            got = ", ".join(str(tuple(value.shape)) for value in (x, y, snr_db))
            raise ValueError(f"x, y and snr_db must have shapes (n, {self.size}), (n, {self.size}) and (n,), got {got}")
        with torch.autocast(x.device.type, enabled=False):  # differences of large sums
            mean, of_x, of_snr = x + self.mean(x), self.log_variance(x), self.noise(snr_db[:, None] / 10.0)
            precision, weight = torch.exp(-of_x), torch.exp(-of_snr)
            # the sum over k of (y_ik - mean_jk)^2 weight_ik precision_jk, without an array (n, n, K)
            distance = (
                (y.square() * weight) @ precision.T
                - 2.0 * (y * weight) @ (mean * precision).T
                + weight @ (mean.square() * precision).T
            )
            logarithms = of_x.sum(1) + of_snr.sum(1, keepdim=True) + self.size * math.log(2.0 * math.pi)
            return -0.5 * (distance + logarithms)


def loss(pairs: Tensor) -> Tensor:
    """L_MI, minus the mean log-likelihood of what arrived, from ``pairs`` (n, n) of :class:`Likelihood`."""
    return -pairs.diagonal().mean()


def upper_bound(pairs: Tensor) -> Tensor:
    """I_up (16) in nats, from ``pairs`` (n, n) of :class:`Likelihood`. Raises ValueError for a single pair."""
    n = len(pairs)
    if n < 2:
        raise ValueError("the bound needs at least 2 images in a batch")
    own = pairs.diagonal()
    return own.mean() - (pairs.sum() - own.sum()) / (n * (n - 1))


def _perceptron(size: int) -> nn.Module:
    """Starts as zero."""
    last = nn.Linear(HIDDEN, size)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(size, HIDDEN), nn.ReLU(), last)
