"""The hyper-prior codec: GDN, priors, the network and its real bit streams."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym.transceivers.hyperprior import coding, measure, priors
from semcom_gym.transceivers.hyperprior import network as networks
from semcom_gym.transceivers.hyperprior.gdn import GDN
from semcom_gym.transceivers.hyperprior.network import Config, Hyperprior

pytest.importorskip("constriction")
torch.set_num_threads(1)
CONFIG = Config(width=6, latents=24, rates=3)
RATES = [0.0, 0.75, 2.0]


def network(seed: int = 0) -> Hyperprior:
    """An untrained network whose hyper-latents are not all alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Hyperprior(CONFIG)
        for layer in (*net.hyper_analysis, *net.hyper_synthesis):
            if hasattr(layer, "weight"):
                torch.nn.init.normal_(layer.bias, std=0.3)
        net.hyper_analysis[-1].weight.data.mul_(6.0)
        torch.nn.init.normal_(net.log2_gain, mean=4.0)
        torch.nn.init.normal_(net.log2_inverse, mean=-4.0)
    return net.eval()


def pictures(n: int, height: int = 128, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Waves with some noise, uint8 (n, 3, height, width)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 32
    wave = rng.uniform(-9, 9, (3, n, 3, 1, 1))
    values = 127 + 100 * np.sin(wave[0] * y + wave[1] * x + wave[2]) + rng.normal(0, 5, (n, 3, height, width))
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8))


NET = network()
STREAM = coding.encode(NET, pictures(1)[0], 1.0)


# --- GDN -------------------------------------------------------------------------------------------------------------
def gdn(maps: int, inverse: bool, seed: int = 0) -> GDN:
    layer, generator = GDN(maps, inverse=inverse), torch.Generator().manual_seed(seed)
    layer.root_beta.data.uniform_(-2.0, 2.0, generator=generator)
    layer.root_gamma.data.uniform_(-1.0, 1.0, generator=generator)
    return layer.double()


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_the_formula(inverse: bool) -> None:
    layer, x = gdn(3, inverse), np.random.default_rng(0).normal(size=(2, 3, 2, 2))
    found = layer(torch.from_numpy(x)).detach().numpy()
    beta, gamma = layer.root_beta.tolist(), layer.root_gamma.tolist()
    for n, i, h, w in np.ndindex(x.shape):
        norm = beta[i] ** 2 + 1e-6 + sum(gamma[i][j] ** 2 * x[n, j, h, w] ** 2 for j in range(3))
        assert found[n, i, h, w] == pytest.approx(x[n, i, h, w] * norm ** (0.5 if inverse else -0.5))


def test_an_inverse_gdn_undoes_a_gdn_of_fixed_norms() -> None:
    forward, back = gdn(4, False), gdn(4, True)
    for layer in (forward, back):
        layer.root_gamma.data.zero_()
    x = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(back(forward(x)), x, rtol=1e-12)


# --- priors ----------------------------------------------------------------------------------------------------------
def factorised(maps: int, seed: int = 0) -> priors.Factorised:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = priors.Factorised(maps)
        for parameter in prior.parameters():
            parameter.data.add_(0.5 * torch.randn(parameter.shape))
    return prior


def test_likelihoods_of_the_factorised_prior_are_a_distribution() -> None:
    prior = factorised(4).double()
    values = torch.arange(-4000.0, 4001.0, dtype=torch.float64).reshape(1, 1, 1, -1).repeat(1, 4, 1, 1)
    mass = prior(values).detach()
    assert mass.shape == values.shape
    assert bool((mass >= 0).all())
    assert torch.allclose(mass.sum(3), torch.ones((), dtype=torch.float64), atol=1e-9)
    edges = torch.linspace(-60, 60, 500, dtype=torch.float64).expand(4, 1, -1)
    assert bool((prior.logits(edges).diff(dim=2) > 0).all())
    table = prior.table(63)
    assert table.shape == (4, 127)
    assert table[:, 1:-1] == pytest.approx(mass[0, :, 0, 4000 - 62 : 4000 + 63].numpy(), abs=2.0**-24)
    assert table.sum(1) == pytest.approx(np.ones(4), abs=127 * 2.0**-25)


def test_each_map_has_a_prior_of_its_own() -> None:
    prior, values = factorised(3), torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    together = prior(values).detach()
    values[:, 1] += 5.0
    assert torch.equal(prior(values).detach()[:, [0, 2]], together[:, [0, 2]])
    assert not torch.allclose(prior(values).detach()[:, 1], together[:, 1])


@pytest.mark.parametrize("log2_scale", [-3.0, 0.3, 4.0])
def test_the_gaussian_likelihood_is_the_mass_of_a_step(log2_scale: float) -> None:
    values = torch.arange(-300.0, 301.0, dtype=torch.float64)
    found = priors.gaussian(values, torch.full_like(values, log2_scale))
    assert float(found.sum()) == pytest.approx(1.0)
    scale = 2.0**log2_scale
    for k in (-3, 0, 1, 7):
        low, high = ((k + side) / (scale * math.sqrt(2)) for side in (-0.5, 0.5))
        assert float(found[k + 300]) == pytest.approx(0.5 * (math.erf(high) - math.erf(low)), abs=1e-12)
    far = priors.gaussian(torch.tensor([9.0, -9.0]), torch.zeros(2))  # no digit is lost in a tail, on either side
    assert far.tolist() == pytest.approx(
        [0.5 * math.erfc(8.5 / math.sqrt(2)) - 0.5 * math.erfc(9.5 / math.sqrt(2))] * 2
    )


@pytest.mark.parametrize(("log2_scale", "limit", "value"), [(-4.0, -3.0, 0.6), (9.0, 8.0, 20.0)])
def test_a_scale_beyond_the_table_can_come_back(log2_scale: float, limit: float, value: float) -> None:
    scale, values = torch.tensor(log2_scale, requires_grad=True), torch.tensor(value)
    mass = priors.gaussian(values, scale)
    assert mass.item() == pytest.approx(priors.gaussian(values, torch.tensor(limit)).item())
    (slope,) = torch.autograd.grad(-torch.log2(mass), scale)  # of bits, which an optimiser makes fewer
    assert slope.item() * log2_scale > 0.1  # towards the table
    (slope,) = torch.autograd.grad(torch.log2(priors.gaussian(values, scale)), scale)
    assert slope.item() == 0.0  # never away from it


def test_levels_are_those_of_the_nearest_scale() -> None:
    table = priors.scale_table()
    assert len(table) == priors.LEVELS == 89
    assert table[[0, 24, -1]] == pytest.approx([0.125, 1.0, 256.0])
    sought = np.random.default_rng(0).uniform(-4, 9, 500)
    found = priors.levels(sought)
    assert np.array_equal(found, [np.abs(np.log2(table) - value).argmin() for value in sought])


# --- network ---------------------------------------------------------------------------------------------------------
def test_it_starts_as_an_orthonormal_transform_that_returns_the_image() -> None:
    basis = networks.cosine_transform(768)[0].flatten(1).double()
    assert torch.allclose(basis @ basis.T, torch.eye(768, dtype=torch.float64), atol=1e-5)
    grey = torch.full((1, 3, 64, 64), 0.8)
    net = Hyperprior(CONFIG)
    shown = net.reconstruct(net.quantised(grey, torch.tensor([2.0])))
    assert float((shown - grey).detach().abs().max()) < 0.05


def test_gains_in_between_are_geometric_means() -> None:
    for vectors in (NET.log2_gain, NET.log2_inverse):
        found = torch.exp2(NET._interpolated(vectors, torch.tensor([0.0, 0.25, 1.5, 2.0]))).squeeze().detach()
        a, b, c = vectors.detach().exp2()
        expected = torch.stack((a, a**0.75 * b**0.25, (b * c).sqrt(), c))
        assert torch.allclose(found, expected, rtol=1e-5)
    assert networks.positions(Config(rates=8), 23)[::22] == [0.0, 7.0]
    assert np.diff(networks.positions(Config(rates=8), 23)) == pytest.approx(np.full(22, 7 / 22))


def test_the_network_codes_each_image_by_itself() -> None:
    images, rates = pictures(3).float() / 255.0, torch.tensor(RATES)
    together, bits = NET(images, rates)
    assert together.shape == images.shape
    for k in range(3):
        alone, bit = NET(images[k : k + 1], rates[k : k + 1])
        assert torch.allclose(alone[0], together[k], atol=1e-4)
        assert bit[0].item() == pytest.approx(bits[k].item(), rel=1e-3)


def test_noise_comes_from_the_generator_only() -> None:
    images, rates = pictures(2).float() / 255.0, torch.tensor([0.0, 2.0])
    before = torch.get_rng_state()
    drawn = [NET(images, rates, torch.Generator().manual_seed(seed))[1] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_every_weight_has_a_gradient() -> None:
    net = network()
    measure.loss(net, pictures(6).float() / 255.0, torch.Generator().manual_seed(0)).backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("rate", RATES)
def test_exact_means_and_scales_are_those_of_the_network(rate: float) -> None:
    hyper = np.random.default_rng(0).integers(-9, 10, (CONFIG.hyper, 2, 1))
    told = NET.parameters_of(torch.from_numpy(hyper)[None].float(), torch.tensor([rate]))
    means, scales = (part[0].detach().numpy() for part in told)
    exact_means, exact_scales = NET.exact_parameters(hyper, rate)
    assert exact_means == pytest.approx(means, abs=1 / 32 + 0.01 * float(np.abs(means).max()))
    assert np.abs(means[:3]).max() > 1.0
    assert not means[3:].any()
    assert exact_scales == pytest.approx(scales, abs=0.01)


def test_exact_means_and_scales_do_not_depend_on_the_order_of_summation() -> None:
    """The hyper-synthesis with its maps in another order adds the same products in another order."""
    other, hyper = network(), np.random.default_rng(0).integers(-63, 64, (CONFIG.hyper, 2, 3))
    order = torch.randperm(CONFIG.width, generator=torch.Generator().manual_seed(0))
    first, _, second, _, third = other.hyper_synthesis
    for layer, axis in ((first, 1), (second, 0), (second, 1), (third, 1)):
        layer.weight.data = layer.weight.data.index_select(axis, order)
    for layer in (first, second):
        layer.bias.data = layer.bias.data[order]
    for found, expected in zip(other.exact_parameters(hyper, 0.75), NET.exact_parameters(hyper, 0.75), strict=True):
        assert np.array_equal(found, expected)


# --- streams ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", RATES)
def test_decoding_gives_what_was_coded_to_the_last_bit(rate: float) -> None:
    """The encoder may see images together and the decoder one by one: the whole numbers are the same."""
    images = pictures(8)
    streams = [coding.encode(NET, image, rate) for image in images]
    for image, stream in zip(images, streams, strict=True):
        values, status = coding.read(NET, stream)
        assert status is coding.Status.INTACT
        coded = NET.latents(image[None].float() / 255.0, torch.tensor([rate]))[0][0].detach().numpy()
        assert np.array_equal(values, np.rint(coded))
    for size in (1, 2, 8):
        latents = torch.stack([coding.decode_latents(NET, stream)[0] for stream in streams[:size]])
        sent = NET.quantised(images[:size].float() / 255.0, torch.full((size,), rate)).detach()
        assert torch.allclose(latents, sent)
        shown = NET.reconstruct(latents).clamp(0, 1).detach()
        assert torch.allclose(coding.decode(NET, streams[0])[0], shown[0], atol=1e-5)


def test_a_stream_is_read_by_a_copy_of_the_network_and_on_more_threads() -> None:
    copy = Hyperprior(CONFIG).to(memory_format=torch.channels_last)
    copy.load_state_dict(NET.state_dict())
    torch.set_num_threads(2)
    try:
        values, status = coding.read(copy, STREAM)
    finally:
        torch.set_num_threads(1)
    assert status is coding.Status.INTACT
    assert np.array_equal(values, coding.read(NET, STREAM)[0])


@pytest.mark.parametrize("rate", RATES)
def test_streams_are_as_long_as_the_likelihoods_say(rate: float) -> None:
    image = pictures(1, 256, 192)[0]
    stream = coding.encode(NET, image, rate)
    batch, index = image[None].float() / 255.0, torch.tensor([rate])
    values, hyper = (torch.round(part) for part in NET.latents(batch, index))
    mean, scale = NET.parameters_of(hyper, index)
    expected = priors.bits(NET.prior(hyper)), priors.bits(priors.gaussian(values - mean, scale))
    for found, bits in zip((stream.hyper_bits, stream.main_bits), expected, strict=True):
        assert abs(found - bits.item()) < 0.01 * bits.item() + 64
    assert stream.bits == 8 * (len(stream.hyper) + len(stream.main))


def test_what_is_too_large_is_cut_off() -> None:
    net = network()
    net.log2_gain.data.fill_(30.0)
    net.hyper_analysis[-1].bias.data.fill_(1e6)
    values, status = coding.read(net, coding.encode(net, pictures(1)[0], 0.0))
    assert status is coding.Status.INTACT
    assert np.abs(values).max() == 1023


damage = st.one_of(
    st.tuples(st.just("flip"), st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True)),
    st.tuples(st.just("cut"), st.integers(1, 10**6)),
    st.tuples(st.just("other"), st.binary(max_size=64)),
    st.tuples(st.just("more"), st.binary(min_size=1, max_size=9)),
)


def damaged(data: bytes, how: tuple[str, object]) -> bytes:
    kind, what = how
    if kind == "flip":
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        bits[np.array(what) % len(bits)] ^= 1
        return np.packbits(bits).tobytes()
    return {"cut": lambda: data[: -1 - what % len(data)], "other": lambda: what, "more": lambda: data + what}[kind]()


@settings(max_examples=60, deadline=None)
@given(damage, st.booleans())
def test_no_damage_stops_the_decoder_or_stays_unseen(how: tuple[str, object], of_hyper: bool) -> None:
    part = "hyper" if of_hyper else "main"
    sent = getattr(STREAM, part)
    stream = dataclasses.replace(STREAM, **{part: damaged(sent, how)})
    image, status = coding.decode(NET, stream)
    assert image.shape == (3, 128, 64)
    assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0
    assert (status is coding.Status.INTACT) == (getattr(stream, part) == sent)
    assert torch.equal(image, coding.decode(NET, stream)[0])  # a defined reconstruction


def test_what_is_made_of_nothing() -> None:
    nothing = NET.reconstruct(torch.zeros(1, CONFIG.latents, 8, 4))[0].clamp(0, 1)
    for changes in ({"hyper": b""}, {"hyper": b"xyz"}, {"main": b"\1"}, {"main": b"\1\2\3\4\0\0\0\0"}):
        image, status = coding.decode(NET, dataclasses.replace(STREAM, **changes))
        assert status is coding.Status.DAMAGED
        assert torch.equal(image, nothing)


def test_the_largest_latents_give_a_picture_all_the_same() -> None:
    signs = torch.randint(0, 2, (2, CONFIG.latents, 8, 4), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    latents = NET.dequantised(1023 * signs, torch.tensor([0.0, 2.0]))
    assert bool(NET.reconstruct(latents).isfinite().all())


# --- figures ---------------------------------------------------------------------------------------------------------
def test_rate_and_distortion_are_of_real_streams_and_of_8_bits() -> None:
    images = pictures(2)
    rows = measure.rate_distortion(NET, images, [0.5, 2])
    assert [row["rate"] for row in rows] == [0.5, 2.0]
    for row in rows:
        bits, hyper, psnr = 0, 0, 0.0
        for image in images:
            stream = coding.encode(NET, image, row["rate"])
            shown = np.rint(coding.decode(NET, stream)[0].numpy().astype(float) * 255)
            bits, hyper = bits + 8 * len(stream.hyper) + 8 * len(stream.main), hyper + 8 * len(stream.hyper)
            psnr += 10 * math.log10(255**2 / np.mean((shown - image.numpy()) ** 2))
        assert row["bpp"] == pytest.approx(bits / (2 * 128 * 64))
        assert row["hyper_bpp"] == pytest.approx(hyper / (2 * 128 * 64))
        assert row["psnr_db"] == pytest.approx(psnr / 2, abs=1e-3)
        assert math.isnan(row["ms_ssim"])  # too small for it
    large = measure.rate_distortion(NET, [pictures(1, 192, 192)[0], pictures(1, 192, 256)[0]], [2])
    assert 0.0 < large[0]["ms_ssim"] < 1.0


# --- errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 4}, "width must be >= 6"),
        ({"width": 8}, "width must be a multiple of 3, got 8"),
        ({"width": 387}, "width"),
        ({"latents": 769}, "latents"),
        ({"rates": 1}, "rates must be >= 2"),
    ],
)
def test_configurations_are_checked(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes)


def test_images_rates_and_sizes_are_checked() -> None:
    image = pictures(1)[0]
    for bad in (image[:, :60], image[:1], image[None]):
        with pytest.raises(ValueError, match="images must be"):
            coding.encode(NET, bad, 1.0)
    for rate in (-0.1, 2.1, math.nan):
        with pytest.raises(ValueError, match="rate must be from 0 to 2"):
            coding.encode(NET, image, rate)
        with pytest.raises(ValueError, match="rate must be from 0 to 2"):
            coding.decode(NET, dataclasses.replace(STREAM, rate=rate))
    with pytest.raises(ValueError, match="multiples of 64"):
        coding.decode(NET, dataclasses.replace(STREAM, size=(100, 64)))
    with pytest.raises(ValueError, match=r"rate must have shape \(1,\)"):
        NET(image[None].float(), torch.zeros(2))
    with pytest.raises(ValueError, match="at least one image"):
        measure.rate_distortion(NET, [], [0.0])
