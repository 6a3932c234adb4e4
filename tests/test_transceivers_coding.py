"""The digital chain: block error rates of 5G codes, the choice of a scheme, pictures over it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from semcom_gym.transceivers.coding import amc, ldpc, link
from semcom_gym.transceivers.coding.schemes import SCHEMES, Scheme

pytest.importorskip("av")
from semcom_gym.transceivers.coding import hevc

PHOTOS = Path(__file__).parent / "fixtures" / "images"
# CQI, SNR [dB] and block error rate of blocks of 1000 bits, as published with Sionna 1.x and 2.x in its tables for
# system-level simulation (PDSCH, Tables 1 and 2; sum-product decoder, 20 iterations), between 0.1 % and 90 %
PUBLISHED = (
    (3, 0.3571, 0.22727), (4, 3.9286, 0.42333), (4, 4.4737, 0.02667), (5, 5.7143, 0.514), (5, 6.0526, 0.14033),
    (6, 7.5, 0.78143), (6, 7.6316, 0.635), (7, 9.2857, 0.60333), (7, 9.2105, 0.6725), (8, 11.0714, 0.81429),
    (8, 12.3684, 0.002), (9, 12.8571, 0.88), (9, 13.9474, 0.043), (10, 16.4286, 0.00133), (10, 15.5263, 0.14733),
    (11, 18.2143, 0.00833), (11, 17.1053, 0.56111), (12, 18.6842, 0.41846), (12, 20.2632, 0.001),
    (13, 20.2632, 0.84833), (13, 21.8421, 0.00867), (14, 23.4211, 0.089), (15, 25.0, 0.15867),
)  # fmt: skip


def photo(name: str, side: int = 64) -> np.ndarray:
    with Image.open(PHOTOS / f"{name}.png") as picture:
        return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1)[:, :side, :side])


@pytest.fixture(scope="module")
def table() -> ldpc.Table:
    return ldpc.load()


# --- block error rates ---------------------------------------------------------------------------------------------


def test_schemes_are_those_of_the_standard() -> None:
    printed = (0.1523, 0.3770, 0.8770, 1.4766, 1.9141, 2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547, 6.2266,
               6.9141, 7.4063)  # fmt: skip
    for scheme, efficiency in zip(SCHEMES, printed, strict=True):
        assert scheme.efficiency == pytest.approx(efficiency, rel=0.007)
        assert 1024 / (scheme.coded_bits - scheme.order) > scheme.rate / 1024 >= 1024 / scheme.coded_bits


def test_the_table_covers_every_waterfall(table: ldpc.Table) -> None:
    limits = table.provenance
    assert table.schemes == SCHEMES
    for scheme in table.schemes:
        found = table.waterfalls[scheme.index]
        assert found.error_rate[0] >= 0.9
        assert found.error_rate[-1] <= 0.01
        assert ((found.errors >= limits["errors"]) | (found.blocks >= limits["blocks"])).all()
    levels = [table.snr_db(scheme, 0.1) for scheme in table.schemes]
    assert levels == sorted(levels)


@pytest.mark.parametrize(("cqi", "snr_db", "error_rate"), PUBLISHED)
def test_agreement_with_published_rates(table: ldpc.Table, cqi: int, snr_db: float, error_rate: float) -> None:
    assert abs(table.snr_db(SCHEMES[cqi - 1], error_rate) - snr_db) < 0.3


def test_no_point_beats_the_normal_approximation(table: ldpc.Table) -> None:
    for scheme in table.schemes:
        found = table.waterfalls[scheme.index]
        least = ldpc.normal_approximation(found.snr_db, 1024, scheme.symbols)
        expected = least * found.blocks
        assert (found.errors >= expected - 4.0 * np.sqrt(expected)).all()
        gap = table.snr_db(scheme, 0.01) - snr_of_the_bound(0.01, scheme.symbols)
        assert 0.5 < gap < 3.5  # code and decoder, and up to 1.5 dB that QAM loses to Gaussian symbols


def bound(snr_db: float, symbols: int) -> float:
    """The normal approximation in plain numbers, over real symbols of half the SNR each way."""
    snr = 10 ** (snr_db / 10)
    uses = 2 * symbols
    capacity = 0.5 * math.log(1 + snr)
    dispersion = snr * (snr + 2) / (2 * (snr + 1) ** 2)
    margin = uses * capacity - 1024 * math.log(2) + 0.5 * math.log(uses)
    return 0.5 * math.erfc(margin / math.sqrt(uses * dispersion) / math.sqrt(2))


def snr_of_the_bound(rate: float, symbols: int) -> float:
    low, high = -20.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if bound(middle, symbols) > rate else (low, middle)
    return high


def test_normal_approximation_by_hand() -> None:
    for snr_db, symbols in ((-1.0, 1168), (0.0, 1168), (10.0, 309), (20.0, 160)):
        assert ldpc.normal_approximation(snr_db, 1024, symbols) == pytest.approx(bound(snr_db, symbols), rel=1e-9)


def test_between_and_beyond_the_points(tmp_path: Path) -> None:
    rows = {"snr_db": [0.0, 1.0, 2.0, 3.0], "blocks": [100, 100, 1000, 1000], "errors": [100, 10, 1, 0]}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"block": 1024, "schemes": {"3": rows}, "provenance": {}}))
    table, scheme = ldpc.load(path), SCHEMES[2]
    assert table.schemes == (scheme,)
    expected = [1.0, 1.0, 10**-0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-4]
    found = table.error_rate(scheme, np.array([-9.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 40.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert table.snr_db(scheme, 0.01) == pytest.approx(1.5, abs=1e-9)
    with pytest.raises(ValueError, match="the table has no scheme 4; it has: 3"):
        table.error_rate(SCHEMES[3], 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is unusable"),
        ('{"block": 512, "schemes": {}, "provenance": {}}', "blocks of 512 bits, not of 1024"),
        (
            '{"block": 1024, "schemes": {"1": {"snr_db": [1, 0], "blocks": [9, 9], "errors": [9, 1]}}}',
            "snr_db must rise",
        ),
        ('{"block": 1024, "schemes": {"1": {"snr_db": [0, 1], "blocks": [9, 9], "errors": [9, 0]}}}', "at two points"),
    ],
)
def test_a_bad_table(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        ldpc.load(path)


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        ldpc.load("nowhere.json")


# --- simulation ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_simulated_blocks() -> None:
    pytest.importorskip("sionna")
    from semcom_gym.transceivers.coding import simulate

    repeated = simulate.Link(Scheme(0, 2, 78), block=40)
    assert repeated.sent == 2 * math.ceil(40 * 1024 / 78 / 2) > 5 * 40
    fast = simulate.Link(Scheme(0, 8, 948), block=100)
    for one, low_db, high_db in ((repeated, -20.0, 0.0), (fast, 10.0, 35.0)):
        assert simulate.count(one, low_db, 0, errors=20, blocks=128) == simulate.Count(64, 64)
        assert simulate.count(one, high_db, 0, blocks=128) == simulate.Count(128, 0)
        middle = [simulate.count(one, 0.5 * (low_db + high_db), seed, blocks=64) for seed in (1, 1)]
        assert middle[0] == middle[1]


def test_what_a_check_tells_its_bits() -> None:
    torch = pytest.importorskip("torch")
    from semcom_gym.transceivers.coding import decoder

    told = [0.7, -2.1, 3.0, -0.2]
    found = decoder._check(torch.tensor(told, dtype=torch.float64).reshape(4, 1, 1)).flatten()
    for k in range(4):
        others = math.prod(math.tanh(x / 2) for j, x in enumerate(told) if j != k)
        assert found[k] == pytest.approx(2 * math.atanh(others), rel=1e-6)


def test_decoding_of_a_small_code() -> None:
    """One layer of two checks of three bits; an unsure bit is put right, two sure ones are not."""
    torch = pytest.importorskip("torch")
    from semcom_gym.transceivers.coding.decoder import Decoder

    checks = scipy.sparse.csr_matrix(np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]]))
    decoder = Decoder(checks, 2, np.ones(6, bool))
    ratios = torch.full((6, 3), 3.0)
    ratios[0, 1] = -0.5  # an error that the check reveals
    ratios[[0, 2], 2] = -5.0  # two that it does not
    sent = torch.zeros(6, 3, dtype=torch.bool)
    assert [decoder.wrong(ratios[:, k : k + 1], sent[:, k : k + 1], 2) for k in range(3)] == [0, 0, 1]
    assert decoder.wrong(ratios, sent, 2) == 1
    unheard = Decoder(checks, 2, np.arange(6) < 4)
    assert not unheard._layers
    with pytest.raises(ValueError, match="rows 0 to 1 of the checks are no layer"):
        Decoder(scipy.sparse.csr_matrix(np.ones((2, 3))), 2, np.ones(3, bool))


@pytest.mark.slow
def test_simulation_gives_the_table_and_the_published_rate(table: ldpc.Table) -> None:
    pytest.importorskip("sionna")
    from semcom_gym.benchmarks import codes
    from semcom_gym.transceivers.coding import simulate

    scheme = SCHEMES[2]
    found, limits = table.waterfalls[scheme.index], {name: table.provenance[name] for name in ("errors", "blocks")}
    k = int(np.argmax(found.error_rate < 0.6))
    again = simulate.count(simulate.Link(scheme), found.snr_db[k], codes._seed(0, scheme, found.snr_db[k]), **limits)
    assert (again.blocks, again.errors) == (found.blocks[k], found.errors[k])
    # QPSK 308/1024, blocks of 1000 bits: 2.87 % at -1.4286 dB in the same tables
    other = simulate.Link(Scheme(0, 2, 308), block=1000)
    below, above = (simulate.count(other, -1.4286 + shift, 5, errors=30, blocks=960) for shift in (-0.3, 0.3))
    assert above.errors / above.blocks < 0.0287 < below.errors / below.blocks


# --- adaptive modulation and coding --------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [-12.0, -3.0, 4.3, 11.0, 19.0, 30.0])
def test_the_best_scheme_is_chosen(table: ldpc.Table, snr_db: float) -> None:
    best, most = None, 0.0
    for scheme in table.schemes:
        rate = float(table.error_rate(scheme, snr_db))
        if rate <= 0.1 and 1008 / scheme.symbols * (1 - rate) > most:
            best, most = scheme, 1008 / scheme.symbols * (1 - rate)
    assert amc.choose(table, snr_db) == best
    assert amc.rate(table, best, snr_db) == pytest.approx(most)
    assert amc.spectral_efficiency(table, np.array([[snr_db]])) == pytest.approx(np.array([[most]]))
    assert amc.oma(table, snr_db, snr_db) == pytest.approx((most / 2, most / 2))


def test_efficiency_rises_below_capacity(table: ldpc.Table) -> None:
    grid = np.arange(-12.0, 32.0, 0.1)
    found = amc.spectral_efficiency(table, grid)
    assert (np.diff(found) >= 0.0).all()
    assert found[0] == 0.0
    assert found[-1] == pytest.approx(1008 / 139, rel=1e-3)
    assert (found <= np.log2(1 + 10 ** (grid / 10))).all()


def test_superposition_by_hand(table: ldpc.Table) -> None:
    weak, strong = 10**0.7, 10**2.0
    pair = amc.superpose(table, 7.0, 20.0)
    share = 1 / (1 + math.sqrt(1 + weak))
    assert pair.share == pytest.approx(share)
    expected = ((1 - share) * weak / (share * weak + 1), (1 - share) * strong / (share * strong + 1), share * strong)
    for level, ratio in zip((pair.weak_db, pair.heard_db, pair.strong_db), expected, strict=True):
        assert level == pytest.approx(10 * math.log10(ratio))
    assert math.log2(1 + expected[0]) == pytest.approx(0.5 * math.log2(1 + weak))  # what half of the symbols carry
    assert pair.weak == amc.choose(table, pair.weak_db)
    assert pair.strong == amc.choose(table, pair.strong_db)
    total = sum(amc.noma(table, 7.0, 20.0))
    assert sum(amc.oma(table, 7.0, 20.0)) < total < math.log2(1 + strong)


def test_errors_of_the_first_user_spoil_the_second(table: ldpc.Table) -> None:
    slow, fast = SCHEMES[4], SCHEMES[2]  # 535 symbols, and 1168: two of the first end with one of the second, or later
    level = table.snr_db(slow, 0.2)
    assert amc.cancelled(table, slow, fast, level) == pytest.approx(0.8**3, rel=1e-6)
    assert amc.cancelled(table, None, fast, level) == amc.cancelled(table, slow, None, level) == 1.0
    pair = amc.superpose(table, 8.0, 8.0)
    rates = amc.noma(table, 8.0, 8.0)
    assert pair.heard_db == pytest.approx(pair.weak_db)
    assert pair.cancelled < 1.0
    assert rates[1] == pytest.approx(pair.cancelled * amc.rate(table, pair.strong, pair.strong_db))


# --- pictures ------------------------------------------------------------------------------------------------------


def one_size(n: int, bits: int) -> link.Source:
    """n pictures whose payload takes so many bits at the coarsest quantiser and does not fit at any other."""
    sizes = np.full((n, 52), 10**9)
    sizes[:, 51] = bits
    pictures = link.Source(np.zeros((n, 3, 16, 16), np.uint8), sizes)
    pictures._decoded.update({(k, 51): np.full((3, 16, 16), 7, np.uint8) for k in range(n)})
    return pictures


def test_all_blocks_of_a_picture_must_arrive() -> None:
    scheme, pictures = SCHEMES[2], one_size(4000, 3 * 1008 - 8)
    sent = link.send(pictures, 3 * 1168, scheme, 0.2, np.random.default_rng(0))
    assert abs(sent.delivered.mean() - 0.8**3) < 4 * math.sqrt(0.512 * 0.488 / 4000)
    assert (sent.images[sent.delivered] == 7).all()
    assert (sent.images[~sent.delivered] == 128).all()
    assert (sent.symbols == 3504).all()
    spoilt = link.send(pictures, 3 * 1168, scheme, 0.2, np.random.default_rng(0), others=0.5)
    assert abs(spoilt.delivered.mean() - 0.4**3) < 4 * math.sqrt(0.064 * 0.936 / 4000)
    assert not (spoilt.delivered & ~sent.delivered).any()  # the same draws
    for symbols, bits, expected in ((3 * 1168 - 1, 2017, False), (3 * 1168, 3024, True), (3 * 1168, 3025, False)):
        found = link.send(one_size(1, bits), symbols, scheme, 0.0, np.random.default_rng(0))
        assert found.delivered.tolist() == [expected]


def test_the_finest_picture_that_fits_is_sent(table: ldpc.Table) -> None:
    pictures = link.source(np.stack([photo("cat"), photo("rocket")]))
    sent = link.send(pictures, 1536, SCHEMES[5], 0.0, np.random.default_rng(0))
    for k in range(2):
        fitting = [qp for qp in range(52) if pictures.bits[k, qp] <= 1536 // 426 * 1008]
        expected, _ = hevc.decode(hevc.encode(pictures.images[k], min(fitting)), 64, 64)
        np.testing.assert_array_equal(sent.images[k], expected)
    assert not link.send(pictures, 1536, None, 0.0, np.random.default_rng(0)).delivered.any()
    level = table.snr_db(SCHEMES[5], 0.1)
    arrived = [
        link.send(
            pictures, 1536, SCHEMES[5], float(table.error_rate(SCHEMES[5], level + step)), np.random.default_rng(1)
        )
        for step in (-1.5, 1.5)
    ]
    assert [sent.delivered.mean() for sent in arrived] == [0.0, 1.0]  # the cliff


@pytest.mark.parametrize("snr_db", [-20.0, 1.0, 3.0, 9.0, 15.0, 28.0])
def test_the_scheme_that_holds_the_most_blocks(table: ldpc.Table, snr_db: float) -> None:
    for symbols in (100, 1200, 6144):
        held = [(symbols // s.symbols, s) for s in table.schemes if symbols >= s.symbols]
        chance = {scheme: float(1 - table.error_rate(scheme, snr_db)) ** count for count, scheme in held}
        safe = [(count, -scheme.index) for count, scheme in held if chance[scheme] >= 0.99]
        found = link.adapt(table, snr_db, symbols)
        if safe:
            assert (symbols // found.symbols, -found.index) == max(safe)
        elif any(chance.values()):
            assert chance[found] == max(chance.values())
        else:
            assert found is None


IMAGE = np.zeros((3, 32, 32), np.uint8)
SOURCE = link.Source(IMAGE[None], np.zeros((1, 52), int))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: hevc.encode(IMAGE[:, :, :17], 30, "4:2:0"),
            ValueError,
            "width must be even with chroma 4:2:0",
        ),
        (lambda: ldpc.load().snr_db(SCHEMES[0], 1e-9), ValueError, "error_rate must be finite, >= 0.0001"),
        (lambda: amc.choose(ldpc.load(), math.nan), ValueError, "snr_db must be finite"),
        (lambda: amc.choose(ldpc.load(), 0.0, 2.0), ValueError, "target must be finite, > 0 and <= 1"),
        (lambda: amc.superpose(ldpc.load(), 9.0, 3.0), ValueError, "weak_db 9 exceeds strong_db 3"),
        (lambda: amc.superpose(ldpc.load(), 3.0, 9.0, share=1.0), ValueError, "share must be below 1"),
        (lambda: link.send(SOURCE, 0, None, 0.0, np.random.default_rng(0)), ValueError, "symbols must be >= 1"),
        (lambda: link.send(SOURCE, 9, None, 1.5, np.random.default_rng(0)), ValueError, "error_rate must be finite"),
        (lambda: link.send(SOURCE, 9, None, 0.5, 0), TypeError, "numpy.random.Generator, got 0"),
        (lambda: link.Source(IMAGE[None], np.zeros((1, 9))), ValueError, r"at all qps, got shape \(1, 9\)"),
    ],
)
def test_mistakes(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
