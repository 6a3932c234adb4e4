"""Channels and metrics against values worked out in the test."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym.transceivers import channel, metrics

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signal(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, dtype=torch.complex128, generator=generator(seed))


# --- channel ---------------------------------------------------------------------------------------------------------
@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(1e-12, 1e12))
def test_every_image_is_sent_with_power_1(seed: int, k: int, size: float) -> None:
    sent = torch.rand(3, k, generator=generator(seed)) < 0.5
    sent[:, 0] = True
    found = channel.normalise_power(size * signal(3, k, seed), sent)
    for row, mask in zip(found.numpy(), sent.numpy(), strict=True):
        assert sum(abs(x) ** 2 for x in row[mask]) / mask.sum() == pytest.approx(1.0)
        assert not row[~mask].any()


def test_power_without_a_mask_and_of_nothing() -> None:
    x = torch.tensor([[3 + 4j, 0j], [0j, 0j]], requires_grad=True)
    found = channel.normalise_power(x)
    torch.testing.assert_close(found, torch.tensor([[(0.6 + 0.8j) * math.sqrt(2), 0j], [0j, 0j]]))
    found.abs().sum().backward()
    assert torch.isfinite(torch.view_as_real(x.grad)).all()


def test_noise_has_variance_1_over_snr_half_in_each_part() -> None:
    snr = torch.tensor([0.1, 1.0, 100.0])
    drawn = channel.noise(signal(3, 200_000), snr, generator())
    for row, value in zip(drawn.numpy(), snr.tolist(), strict=True):
        for part in (row.real, row.imag):
            assert np.mean(part**2) == pytest.approx(0.5 / value, rel=0.02)  # the relative error is 0.0032
        assert abs(np.mean(row.real * row.imag)) < 0.01 / value


def test_awgn_adds_it() -> None:
    x = signal(2, 5)
    received, snr = channel.transmit(x, 4.0, "awgn", generator(1))
    torch.testing.assert_close(received, x + channel.noise(x, 4.0, generator(1)))
    assert snr.tolist() == [4.0, 4.0]


def test_rayleigh_is_one_gain_per_image_and_the_receiver_knows_it() -> None:
    x = channel.normalise_power(signal(20_000, 4))
    received, gain = channel.rayleigh(x, 1e12, generator())
    torch.testing.assert_close(received, gain[:, None] * x, atol=1e-4, rtol=0.0)
    assert float(gain.abs().square().mean()) == pytest.approx(1.0, rel=0.04)
    assert float(gain.real.square().mean()) == pytest.approx(0.5, rel=0.06)
    clean, seen = channel.transmit(x, 1e12, "rayleigh", generator())
    torch.testing.assert_close(clean, x, atol=1e-2, rtol=0.0)
    torch.testing.assert_close(seen, 1e12 * gain.abs().square())


def test_equaliser_is_the_best_linear_one() -> None:
    """E|x - w y|^2 of y = h x + n is least at w = h* / (|h|^2 + 1/snr)."""
    h, snr = 0.6 - 0.3j, 2.0
    w = complex(channel.equalise(torch.ones(1, 1, dtype=torch.complex128), torch.tensor([h]), snr)[0, 0])

    def error(weight: complex) -> float:
        return abs(1 - weight * h) ** 2 + abs(weight) ** 2 / snr

    assert all(error(w) < error(w + step) for step in (1e-3, -1e-3, 1e-3j, -1e-3j))


def test_symbols_are_neighbouring_values() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert channel.to_symbols(values).tolist() == [[1 + 2j, 3 + 4j]]
    assert torch.equal(channel.to_values(channel.to_symbols(values)), values)
    assert float(channel.db_to_linear(10.0)) == pytest.approx(10.0)


def test_mistakes_about_channels() -> None:
    x = signal(2, 4)
    with pytest.raises(ValueError, match="snr must be positive"):
        channel.awgn(x, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"one per image \(2\), got 3"):
        channel.awgn(x, torch.ones(3))
    with pytest.raises(ValueError, match="unknown channel 'rice'"):
        channel.transmit(x, 1.0, "rice")
    with pytest.raises(ValueError, match="even number of values, got 3"):
        channel.to_symbols(torch.ones(1, 3))


# --- metrics ---------------------------------------------------------------------------------------------------------
def pictures(side: int, noise: float, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures, and the same with noise."""
    rng = np.random.default_rng(side)
    grid = np.linspace(0, 6, side)
    smooth = [np.sin(rng.uniform(0.5, 2) * grid[:, None] + rng.uniform(0.5, 2) * grid) for _ in range(3 * n)]
    clean = 0.5 + 0.3 * np.array(smooth).reshape(n, 3, side, side)
    noisy = np.clip(clean + noise * rng.standard_normal(clean.shape), 0, 1)
    return torch.from_numpy(noisy), torch.from_numpy(clean)


def test_psnr_by_hand() -> None:
    reference = torch.zeros(2, 3, 2, 2)
    image = reference.clone()
    image[0] += 0.1
    image[1, 0, 0, 0] = 0.5
    assert metrics.psnr_db(image, reference).tolist() == pytest.approx([20.0, -10 * math.log10(0.25 / 12)])
    assert metrics.psnr_db(image, image).tolist() == [math.inf] * 2


def plain_ms_ssim(x: np.ndarray, y: np.ndarray, scales: int, window: int) -> float:
    """Of one picture in one colour, with two-dimensional convolutions."""
    place = np.arange(window) - (window - 1) / 2
    line = np.exp(-(place**2) / (2 * (1.5 * window / 11) ** 2))
    kernel = np.outer(line, line) / line.sum() ** 2

    def blur(a: np.ndarray) -> np.ndarray:
        return scipy.signal.convolve2d(a, kernel, "valid")

    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    weights /= weights.sum()
    found = 1.0
    for scale, weight in enumerate(weights):
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        term = (2 * cov + 0.0009) / (vx + vy + 0.0009)
        if scale == scales - 1:
            term = term * (2 * mx * my + 0.0001) / (mx**2 + my**2 + 0.0001)
        found *= max(term.mean(), 0.0) ** weight
        half = len(x) // 2
        x, y = (a[: 2 * half, : 2 * half].reshape(half, 2, half, 2).mean((1, 3)) for a in (x, y))
    return found


@pytest.mark.parametrize(("variant", "side"), [("ms_ssim", 176), ("ms_ssim_M4w7", 64), ("ms_ssim_M3w7", 32)])
def test_ms_ssim_is_its_definition(variant: str, side: int) -> None:
    noisy, clean = pictures(side, 0.1, n=1)
    expected = np.mean(
        [
            plain_ms_ssim(a, b, *metrics.VARIANTS[variant])
            for a, b in zip(noisy[0].numpy(), clean[0].numpy(), strict=True)
        ]
    )
    assert float(metrics.ms_ssim(noisy, clean, variant)[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("variant", metrics.VARIANTS)
def test_ms_ssim_is_1_for_the_same_and_falls_with_noise(variant: str) -> None:
    clean = pictures(176, 0.0)[1]
    found = [float(metrics.ms_ssim(pictures(176, noise)[0], clean, variant).mean()) for noise in (0.0, 0.05, 0.2)]
    assert found[0] == pytest.approx(1.0)
    assert found[0] > found[1] > found[2] > 0


@pytest.mark.parametrize(("variant", "least"), [("ms_ssim", 176), ("ms_ssim_M4w11", 88), ("ms_ssim_M3w7", 28)])
def test_ms_ssim_needs_images_large_enough(variant: str, least: int) -> None:
    small = torch.rand(1, 3, least - 1, least)
    with pytest.raises(ValueError, match=f"{variant} needs images of at least {least} pixels"):
        metrics.ms_ssim(small, small, variant)
    assert metrics.ms_ssim(torch.ones(1, 3, least, least), torch.ones(1, 3, least, least), variant).shape == (1,)


def test_mistakes_about_metrics() -> None:
    with pytest.raises(ValueError, match="of one shape"):
        metrics.psnr_db(torch.ones(1, 3, 4, 4), torch.ones(2, 3, 4, 4))
    with pytest.raises(ValueError, match="unknown variant of MS-SSIM 'ssim'"):
        metrics.ms_ssim(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4), "ssim")
