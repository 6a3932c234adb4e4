"""Deep JSCC: the network and its measurement."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semcom_gym.transceivers import channel, metrics
from semcom_gym.transceivers.deepjscc import measure
from semcom_gym.transceivers.deepjscc.network import Config, DeepJSCC, ratio

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("empty_default_device")


def network(width: int = 8, maps: int = 12) -> DeepJSCC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DeepJSCC(Config(width, maps))


def smooth(n: int, height: int, width: int | None = None, seed: int = 0) -> np.ndarray:
    """Smooth colour pictures, uint8 (n, 3, height, width)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, : width or height] / 32
    wave = rng.uniform(-9, 9, (3, n, 3, 1, 1))
    return (127 + 120 * np.sin(wave[0] * y + wave[1] * x + wave[2])).astype(np.uint8)


def link(n: int, snr_db: float, maps: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((n,), snr_db), torch.full((n,), maps)


# --- network ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48), (8, 8)])
def test_symbols_have_power_1_and_are_as_many_as_the_ratio_says(height: int, width: int) -> None:
    net, images = network(), torch.from_numpy(smooth(3, height, width)) / 255.0
    maps = torch.tensor([1, 5, 12])
    symbols = net.encode(images, torch.zeros(3), maps).detach()
    for row, count in zip(symbols, maps.tolist(), strict=True):
        sent = int((row != 0).sum())
        assert sent == pytest.approx(ratio(count) * 3 * height * width)
        assert not row[sent:].any()  # a prefix
        assert float(row.abs().square().sum()) / sent == pytest.approx(1.0, rel=1e-5)
    found = net(images, torch.zeros(3), maps, generator=torch.Generator().manual_seed(0)).detach()
    assert found.shape == images.shape
    assert float(found.min()) >= 0 <= float(found.max()) <= 1


def test_what_is_not_sent_is_not_received() -> None:
    net, images = network(), torch.from_numpy(smooth(2, 16)) / 255.0
    snr_db, maps = link(2, 5.0, 4)
    symbols = net.encode(images, snr_db, maps)
    other = torch.where(symbols == 0, 7.0 + 1j, symbols)
    assert torch.equal(net.decode(symbols, snr_db, maps, (16, 16)), net.decode(other, snr_db, maps, (16, 16)))


def test_the_noise_is_that_of_the_snr() -> None:
    """With the decoder taken away: received minus sent has a power of 1/snr on what is sent."""
    net, images = network(), torch.from_numpy(smooth(40, 32)) / 255.0
    received = []
    net.decode = lambda symbols, *rest: received.append(symbols) or images  # type: ignore[assignment,method-assign]
    snr_db, maps = link(40, -5.0, 12)
    net(images, snr_db, maps, generator=torch.Generator().manual_seed(0))
    noise = (received[0] - net.encode(images, snr_db, maps)).detach()
    assert float(noise.abs().square().mean()) == pytest.approx(10**0.5, rel=0.03)


def test_every_weight_learns_and_the_link_is_heeded() -> None:
    net, images = network(), torch.from_numpy(smooth(8, 16)) / 255.0
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    before = {name: value.clone() for name, value in net.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        measure.loss(net, images, generator, measure.Range(least_maps=2)).backward()
        optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in net.named_parameters())
    at = [net.encode(images, *link(8, snr_db, maps)) for snr_db, maps in ((0.0, 12), (9.0, 12))]
    assert not torch.equal(*at)


def test_it_overfits_a_few_images() -> None:
    net, images = network(16), torch.from_numpy(smooth(4, 16)) / 255.0
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    start = metrics.psnr_db(net(images, *link(4, 20.0, 12), generator=generator), images).mean().item()
    for _ in range(250):
        optimizer.zero_grad()
        measure.loss(net, images, generator, measure.Range(15.0, 20.0, 10)).backward()
        optimizer.step()
    end = metrics.psnr_db(net(images, *link(4, 20.0, 12), generator=generator), images).mean().item()
    assert start < 11
    assert end > 20


def test_fading_costs_quality_of_the_same_mean_snr() -> None:
    x = channel.normalise_power(torch.randn(4000, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)))
    errors = [
        (channel.transmit(x, 10.0, medium, torch.Generator().manual_seed(1))[0] - x).abs().square().mean().item()
        for medium in channel.CHANNELS
    ]
    assert errors[0] == pytest.approx(0.1, rel=0.05)
    assert errors[1] > 1.5 * errors[0]


@pytest.mark.parametrize(
    ("images", "snr_db", "maps", "message"),
    [
        (torch.ones(2, 3, 30, 32), torch.zeros(2), torch.ones(2, dtype=torch.long), r"multiples of 8, got \(2, 3, 30"),
        (torch.ones(2, 1, 32, 32), torch.zeros(2), torch.ones(2, dtype=torch.long), r"must be \(n, 3, H, W\)"),
        (torch.ones(2, 3, 8, 8), torch.zeros(1), torch.ones(2, dtype=torch.long), r"snr_db must have shape \(2,\)"),
        (torch.ones(2, 3, 8, 8), torch.zeros(2), torch.tensor([1, 13]), "integers from 1 to 12"),
        (torch.ones(2, 3, 8, 8), torch.zeros(2), torch.ones(2), "integers from 1 to 12"),
    ],
)
def test_mistakes_about_the_network(
    images: torch.Tensor, snr_db: torch.Tensor, maps: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        network()(images, snr_db, maps)


# --- measurement -----------------------------------------------------------------------------------------------------
def test_psnr_is_the_mean_over_crops_with_the_same_noise_everywhere() -> None:
    net, crops = network(), torch.from_numpy(smooth(300, 8))
    first = measure.psnr_db(net, crops, [4, 12], 5.0)
    assert first == measure.psnr_db(net, crops, [4, 12], 5.0)
    assert first[1] == measure.psnr_db(net, crops, [12], 5.0)[0]
    assert first != measure.psnr_db(net, crops, [4, 12], 5.0, seed=1)
    images, generator, values = crops / 255.0, torch.Generator(), []
    for k, part in enumerate((images[:250], images[250:])):
        with torch.no_grad():
            found = net(part, *link(len(part), 5.0, 4), generator=generator.manual_seed(k)).numpy()
        values += [-10 * np.log10(np.mean((a - b) ** 2)) for a, b in zip(found, part.numpy(), strict=True)]
    assert first[0]["psnr_db"] == pytest.approx(np.mean(values), rel=1e-6)
    assert first[0]["error"] == pytest.approx(np.std(values, ddof=1) / 300**0.5, rel=1e-5)
    assert (first[0]["ratio"], first[0]["snr_db"]) == (4 / 96, 5.0)
    assert measure.psnr_of_crops(net, crops, 4, 5.0).tolist() == pytest.approx(values, rel=1e-5)
    with pytest.raises(ValueError, match="at least 2 crops, got 1"):
        measure.psnr_db(net, crops[:1], [4], 5.0)
