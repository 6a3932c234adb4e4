"""SC-SFMA: channel coding, superposition, the schemes beside it, and measurement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semcom_gym.transceivers import channel
from semcom_gym.transceivers.sfma import measure
from semcom_gym.transceivers.sfma.network import PAPER, SCHEMES, Config, Transceiver, build, power_ratio

torch.set_num_threads(1)
TINY = Config(channels=4, depths=(1, 2), heads=(1, 2), window=2, width=8)


def network(scheme: str = "sc_sfma", config: Config = TINY) -> Transceiver:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(scheme, config)


def stirred(module: nn.Module) -> nn.Module:
    """With random weights everywhere, so that nothing is silent."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in module.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator)
    return module


def images(n: int, side: int = 16, width: int | None = None, seed: int = 0) -> Tensor:
    """Pairs of smooth images, (n, 2, 3, side, width)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, : width or side] / 8
    wave = rng.uniform(-3, 3, (3, n, 2, 3, 1, 1))
    return torch.from_numpy(0.5 + 0.4 * np.sin(wave[0] * y + wave[1] * x + wave[2])).float()


def link(n: int, snr_db: float = 10.0, share: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((n,), snr_db), torch.full((n,), share)


# --- network ---------------------------------------------------------------------------------------------------------
def test_the_paper_s_size() -> None:
    """Real weights, on the smallest image that has as many tokens as a window at the third stage."""
    assert [PAPER.channels_of(k) for k in range(4)] == [128, 256, 512, 1024]
    assert PAPER.features == 8 * 128
    assert 2 * PAPER.ratio(0.125) == pytest.approx(128 * 0.125 / 96)  # the paper's CBR, which counts reals
    PAPER.check_side(256, 256)
    net = network("sc_sfma", PAPER)
    shapes: list[tuple[int, ...]] = []
    for stage in net.encoder.stages:
        stage.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape)))
    with torch.no_grad():
        symbols = net.encode(images(1, 64), *link(1, share=0.3))
        assert net.decode(symbols, *link(1, share=0.3)).shape == (1, 2, 3, 64, 64)
    assert shapes == [(2, 32, 32, 128), (2, 16, 16, 256), (2, 8, 8, 512), (2, 4, 4, 1024)]
    assert symbols.shape == (1, 2, 4 * 4 * 1024 // 2)
    assert int((symbols[0, 0] != 0).sum()) == 4 * 4 * math.floor(0.3 * 1024) // 2
    assert [len(stage.blocks) for stage in net.encoder.stages] == [2, 2, 6, 2]
    assert [len(stage.blocks) for stage in net.decoder.stages] == [2, 6, 2, 2]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24)])
def test_shapes_powers_and_counts(scheme: str, height: int, width: int) -> None:
    net, pairs = network(scheme), images(4, height, width)
    snr_db, share = torch.zeros(4), torch.tensor([0.25, 0.5, 0.75, 1.0])
    symbols = net.encode(pairs, snr_db, share).detach()
    per_channel = height * width // 16 // 2
    assert symbols.shape == (4, 2, TINY.features * per_channel)
    users = 2 if scheme == "swinjscc_oma" else 1
    for row, part in zip(symbols, share.tolist(), strict=True):
        for user in row:
            assert int((user != 0).sum()) == int(part * TINY.features) * per_channel // users
            assert float(user.abs().square().sum()) / int((user != 0).sum()) == pytest.approx(1.0, rel=1e-5)
        assert not row[:, int(part * TINY.features) * per_channel :].any()  # a prefix
        if scheme == "swinjscc_oma":
            assert not bool(((row[0] != 0) & (row[1] != 0)).any())
    found = net(pairs, snr_db, share, torch.Generator().manual_seed(0)).detach()
    assert found.shape == pairs.shape
    assert 0.0 <= float(found.min()) < float(found.max()) <= 1.0


def test_masks_are_nested_and_count_as_the_paper_does() -> None:
    net = network(config=Config(channels=5, depths=(1, 1), heads=(1, 1), window=2))
    shares = torch.tensor([0.1, 0.19, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 0.999, 1.0])
    counts = [1, 1, 2, 3, 5, 6, 7, 9, 9, 10]  # floor(delta * 10); 0.7 and 0.9 in float32 lie below
    masks = net.mask(shares)
    assert masks.sum(-1)[:, 0].tolist() == counts
    assert [net.config.sent(float(share)) for share in shares] == counts
    assert bool((masks[1:] >= masks[:-1]).all())
    assert torch.equal(masks[:, 0], masks[:, 1])
    orthogonal = network("swinjscc_oma", net.config).mask(shares[2:])
    assert orthogonal.sum(-1).tolist() == [[c // 2, c // 2] for c in counts[2:]]
    assert not bool((orthogonal[:, 0] & orthogonal[:, 1]).any())


def test_the_power_of_the_sum_is_1_whatever_the_correlation() -> None:
    net = network()
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(3, 64, dtype=torch.complex64, generator=generator) for _ in range(2))
    share = torch.ones(3)
    for second, ratio in ((one, 2.0), (two, None), (0.8 * one + 0.6 * two, None), (1j * one, 1.0)):
        symbols = torch.stack((one, second), 1)
        power = net.superpose(symbols, share).abs().square().mean(1)
        assert power.tolist() == pytest.approx([1.0] * 3, rel=1e-5)
        plain = (one + second).abs().square().sum(1) / (one.abs().square() + second.abs().square()).sum(1)
        assert power_ratio(symbols).tolist() == pytest.approx(plain.tolist(), abs=1e-5)
        if ratio is not None:
            assert power_ratio(symbols).tolist() == pytest.approx([ratio] * 3, abs=1e-5)


def test_opposite_signals_leave_nothing_to_send() -> None:
    one = torch.randn(3, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    symbols = torch.stack((one, -one), 1).requires_grad_()
    assert power_ratio(symbols).tolist() == [0.0] * 3
    signal = network().superpose(symbols, torch.ones(3))
    assert not bool(signal.abs().any())
    signal.abs().square().sum().backward()
    assert bool(torch.isfinite(torch.view_as_real(symbols.grad)).all())
    assert power_ratio(torch.zeros(1, 2, 4, dtype=torch.complex64)).tolist() == [0.0]


@pytest.mark.parametrize("scheme", ["sc_sfma", "swinjscc_oma"])
def test_the_pair_is_sent_with_power_1_over_its_symbols_and_noise_of_the_snr(scheme: str) -> None:
    net, pairs = network(scheme), images(30)
    snr_db, share = link(30, -3.0, 0.5)
    received, symbols = net.transmit(pairs, snr_db, share, torch.Generator().manual_seed(0))
    signal = net.superpose(symbols, share).detach()
    sent = int((signal[0] != 0).sum())
    assert sent == symbols.shape[-1] // 2
    assert (signal.abs().square().sum(1) / sent).tolist() == pytest.approx([1.0] * 30, rel=1e-5)
    noise = (received - signal[:, None]).detach()
    assert float(noise.abs().square().mean()) == pytest.approx(10**0.3, rel=0.03)
    assert float((noise[:, 0] * noise[:, 1].conj()).mean().abs()) < 0.1  # each receiver has its own
    again, _ = net.transmit(pairs, *link(30, 7.0, 1.0), torch.Generator().manual_seed(0))
    other = net.superpose(net.encode(pairs, *link(30, 7.0, 1.0)), torch.ones(30)).detach()
    assert torch.allclose((again - other[:, None]) * 10**0.5, noise, atol=1e-4)  # the same draw, 10 dB less of it


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_not_sent_to_a_user_is_not_received(scheme: str) -> None:
    net = stirred(network(scheme))
    snr_db, share = link(2, 5.0, 0.5)
    received, symbols = net.transmit(images(2), snr_db, share, torch.Generator().manual_seed(0))
    other = torch.where(symbols == 0, 7.0 + 1j, received)
    assert not torch.equal(received, other)
    assert torch.equal(net.decode(received, snr_db, share), net.decode(other, snr_db, share))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_weight_learns_and_the_link_is_heeded(scheme: str) -> None:
    net, pairs = network(scheme), images(8)
    before = {name: value.clone() for name, value in net.named_parameters()}
    optimizer, generator = torch.optim.Adam(net.parameters(), 1e-2), torch.Generator()
    figures = []
    for step in range(21):
        optimizer.zero_grad()
        value = measure.loss(net, pairs, generator.manual_seed(step % 20), measure.Range(least_share=0.25))
        value.backward()
        optimizer.step()
        figures.append(value.item())
    assert not [name for name, value in net.named_parameters() if torch.equal(value, before[name])]
    assert figures[20] < 0.9 * figures[0]  # the same draws
    symbols = net.encode(pairs, *link(8, 0.0))
    assert not torch.allclose(symbols, net.encode(pairs, *link(8, 9.0)), atol=1e-4)
    swapped = torch.stack((pairs[:, 0], images(8, seed=1)[:, 1]), 1)
    same = torch.allclose(symbols[:, 0], net.encode(swapped, *link(8, 0.0))[:, 0], atol=1e-4)
    assert same == (scheme != "sc_sfma")  # only there does a user's signal depend on the partner's image


def test_users_start_apart() -> None:
    """Almost: an untrained network hands each user an image that is nearer to its own than to the partner's."""
    net, pairs = network(config=Config()), images(20, 32)
    with torch.no_grad():
        found = net(pairs, *link(20, 20.0), torch.Generator().manual_seed(0))
    own = (found - pairs).square().mean((1, 2, 3, 4))
    assert bool((own < (found - pairs.flip(1)).square().mean((1, 2, 3, 4))).all())
    assert float(power_ratio(net.encode(pairs, *link(20, 20.0)).detach()).sub(1.0).abs().max()) < 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 1}, "channels must be >= 2"),
        ({"depths": (1, 2, 0)}, "depths must be >= 1"),
        ({"depths": (1, 2)}, r"depths and heads must be of 2 stages or more, as many, got \(1, 2\), \(1, 2, 4\)"),
        ({"heads": (1, 5, 4)}, "5 heads do not divide the 48 channels of their stage"),
        ({"window": 2.0}, "window must be an integer"),
    ],
)
def test_mistakes_about_the_size(changes: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Config(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pairs", "snr_db", "share", "message"),
    [
        (torch.ones(2, 3, 8, 8), torch.ones(2), torch.ones(2), r"pairs must be \(n, 2, 3, H, W\), got \(2, 3, 8, 8\)"),
        (torch.ones(1, 2, 3, 8, 6), torch.ones(1), torch.ones(1), "8x6: sides must be multiples of 4"),
        (torch.ones(1, 2, 3, 12, 8), torch.ones(1), torch.ones(1), "stage 2, 3x2, cannot be cut into windows of 2"),
        (torch.ones(1, 2, 3, 4, 4), torch.ones(1), torch.ones(1), "half a symbol: a side must be a multiple of 8"),
        (torch.ones(2, 2, 3, 8, 8), torch.ones(1), torch.ones(2), r"snr_db must have shape \(2,\), got \(1,\)"),
        (torch.ones(2, 2, 3, 8, 8), torch.ones(2), torch.tensor([1.0, 0.12]), "share must be from 0.125, .* to 1"),
        (torch.ones(1, 2, 3, 8, 8), torch.ones(1), torch.tensor([1.01]), "share must be from"),
        (torch.ones(1, 2, 3, 8, 8), torch.ones(1), torch.tensor([math.nan]), "share must be from"),
    ],
)
def test_mistakes_about_pairs(pairs: Tensor, snr_db: Tensor, share: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        network()(pairs, snr_db, share)
    assert "\n" not in str(caught.value)


def test_other_mistakes() -> None:
    with pytest.raises(ValueError, match=r"unknown scheme 'sc_smfa'; valid: .*; did you mean 'sc_sfma'"):
        build("sc_smfa")
    with pytest.raises(ValueError, match=r"share must be from 0\.25, 2 of the channels, to 1"):
        network("swinjscc_oma").encode(images(1), *link(1, share=0.2))
    net = network()
    with pytest.raises(ValueError, match=r"received must be of 4x4 feature maps, got shape \(1, 2, 72\)"):
        net.decode(torch.zeros(1, 2, 72, dtype=torch.complex64), *link(1))
    with pytest.raises(ValueError, match="received must be of"):
        net.decode(channel.to_symbols(torch.zeros(1, 2, 256)), *link(1), size=(8, 8))


# --- measurement -----------------------------------------------------------------------------------------------------
def test_a_surface_is_the_mean_over_pairs_with_the_same_noise_everywhere() -> None:
    net, pairs = network(), (255 * images(300, 8)).byte()
    points = measure.surface(net, pairs, [0.0, 9.0], [0.5, 1.0], seed=3)
    assert [(p["snr_db"], p["share"], p["ratio"]) for p in points] == [
        (0.0, 0.5, 1 / 24), (0.0, 1.0, 1 / 12), (9.0, 0.5, 1 / 24), (9.0, 1.0, 1 / 12)
    ]  # fmt: skip
    assert measure.surface(net, pairs, [9.0], [0.5], seed=3) == [points[2]]
    assert measure.surface(net, pairs, [9.0], [0.5], seed=4) != [points[2]]
    generator, mse, power = torch.Generator(), [], []
    for k, part in enumerate((pairs / 255.0).split(125)):
        with torch.no_grad():
            found = net(part, *link(len(part), 9.0, 0.5), generator.manual_seed(3 * 1_000_003 + k))
            symbols = net.encode(part, *link(len(part), 9.0, 0.5))
        mse += ((found - part) ** 2).mean((2, 3, 4)).tolist()
        power += power_ratio(symbols).tolist()
    mse_of, psnr = np.array(mse), -10 * np.log10(mse)
    for name, values in (
        ("mse", mse_of.mean(1)), ("psnr_db", psnr.mean(1)), ("first_mse", mse_of[:, 0]), ("first_psnr_db", psnr[:, 0])
    ):  # fmt: skip
        assert points[2][name] == pytest.approx(values.mean(), rel=1e-5)
        assert points[2][f"{name}_error"] == pytest.approx(values.std(ddof=1) / 300**0.5, rel=1e-4)
    assert points[2]["power_ratio"] == pytest.approx(np.mean(power), rel=1e-5)
    with pytest.raises(ValueError, match="at least 2 pairs, got 1"):
        measure.errors(net, pairs[:1], 0.0, 1.0)
