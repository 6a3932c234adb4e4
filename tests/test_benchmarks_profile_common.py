"""What the profiles count of a training step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semcom_gym.benchmarks import profile_common

torch.set_num_threads(1)


def test_operations_of_a_convolution() -> None:
    """3 maps to 5 on 6 x 6 places through 3 x 3 taps: 2 x 5 x 3 x 9 x 36 forward and as many for the weights' gradient.

    The images need no gradient, so a first layer has no third pass.
    """
    network = nn.Conv2d(3, 5, 3, bias=False)
    found = profile_common.work(network, network, 8, images_per_second=10.0)
    assert found["flop_per_image"] == 2 * (2 * 5 * 3 * 9 * 36)
    assert found["flop_per_second"] == 10.0 * found["flop_per_image"]
    assert found["share_of_peak"] is None  # of a CPU
    assert network.weight.grad is None


def test_share_of_the_peak_of_a_device_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_common, "PEAK_FLOPS", {"": 1e6})  # a part of every name
    network = nn.Linear(8, 1, bias=False)
    found = profile_common.work(network, network, 8, images_per_second=100.0)
    assert found["share_of_peak"] == pytest.approx(found["flop_per_second"] / 1e6)
    record = {"images": 300, "seconds": 3.0}
    line = profile_common.trained_on({**found, "training": record})
    assert line.startswith("trained on 300 images in 3 s (100 a second, ")
    assert line.endswith(f"{found['share_of_peak']:.1%} of the device's peak)")
