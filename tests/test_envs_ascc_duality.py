"""Uplink-downlink duality: (33)-(37), (43), what their printed signs do, and SINRs by root of one formula for all."""

from __future__ import annotations

from typing import Any

import ascc_plain as plain
import numpy as np
import pytest
from ascc_plain import ASCC, PRESETS
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym.envs.ascc import actions, duality, physics


def channels(users: int, antennas: int, n: int = 40, seed: int = 0, spread_db: float = 8.0) -> tuple[Any, np.ndarray]:
    """Instances and dual powers of 6 W together."""
    params = ASCC.preset("default", num_users=users, num_antennas=antennas, gain_range_db=(-spread_db, spread_db))
    rng = np.random.default_rng(seed)
    return ASCC.sample(params, rng, n), 6.0 * rng.dirichlet(np.ones(users), n)


def complex_channel(instance: Any) -> np.ndarray:
    return instance.channel_re + 1j * instance.channel_im


def mmse(h: np.ndarray, power: np.ndarray) -> np.ndarray:
    """(43) with its matrix of antennas, (K, N_t) from channels (K, N_t)."""
    covariance = np.eye(h.shape[1]) + sum(q * np.outer(x, x.conj()) for q, x in zip(power, h, strict=True))
    beam = np.linalg.solve(covariance, h.T).T
    return beam / np.linalg.norm(beam, axis=1, keepdims=True)


SIZES = [(1, 1), (1, 4), (2, 2), (3, 3), (4, 4), (4, 2), (4, 1), (3, 8), (6, 4)]


@pytest.mark.parametrize(("users", "antennas"), SIZES)
def test_beams_and_sinrs_are_those_of_43_and_33(users: int, antennas: int) -> None:
    instance, dual = channels(users, antennas)
    _, beam, gamma = actions.realise(instance, dual)
    found = duality.uplink(duality.gram(instance), dual)
    for n, h in enumerate(complex_channel(instance)):
        expected = mmse(h, dual[n])
        overlap = np.abs((expected.conj() * beam[n]).sum(axis=1))
        np.testing.assert_allclose(overlap, 1.0, rtol=1e-12)  # beams are alike up to a phase
        by_hand = plain.uplink_sinr(h.tolist(), dual[n].tolist(), expected.tolist())
        assert gamma[n].tolist() == pytest.approx(by_hand, rel=1e-10)
        assert found.sinr[n].tolist() == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize(("users", "antennas"), SIZES)
def test_one_inverse_gives_every_sinr(users: int, antennas: int) -> None:
    """1 + gamma_i = 1 / [(I + Q G)^-1]_ii, which the certificate rests on."""
    instance, dual = channels(users, antennas, seed=1)
    gamma = actions.realise(instance, dual)[2]
    for n, h in enumerate(complex_channel(instance)):
        inverse = np.linalg.inv(np.eye(users) + np.diag(dual[n]) @ (h.conj() @ h.T))
        np.testing.assert_allclose(1.0 + gamma[n], 1.0 / np.diag(inverse).real, rtol=1e-10)


def test_sinr_of_two_users_in_closed_form() -> None:
    instance, dual = channels(2, 2, seed=2)
    gamma = actions.realise(instance, dual)[2]
    for (q1, q2), h, got in zip(dual, complex_channel(instance), gamma, strict=True):
        g11, g22 = (float(np.vdot(x, x).real) for x in h)
        both = (1 + q1 * g11) * (1 + q2 * g22) - q1 * q2 * abs(np.vdot(h[0], h[1])) ** 2
        assert got.tolist() == pytest.approx([both / (1 + q2 * g22) - 1, both / (1 + q1 * g11) - 1], rel=1e-11)


@pytest.mark.parametrize(("users", "antennas"), SIZES)
def test_downlink_has_the_sinrs_and_the_power_of_the_uplink(users: int, antennas: int) -> None:
    instance, dual = channels(users, antennas, seed=3)
    power, beam, gamma = actions.realise(instance, dual)
    assert (power >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(beam, axis=-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(power.sum(axis=-1), dual.sum(axis=-1), rtol=1e-8)
    for n, h in enumerate(complex_channel(instance)):
        by_hand = plain.sinr(h.tolist(), power[n].tolist(), beam[n].tolist())
        assert by_hand == pytest.approx(gamma[n].tolist(), rel=1e-8)


@pytest.mark.parametrize(("users", "antennas"), SIZES)
def test_34_and_35_are_inverse_to_each_other(users: int, antennas: int) -> None:
    """For any beams, not only MMSE ones: q from p by (35), p from q by (34), SINRs and total power the same."""
    instance, _ = channels(users, antennas, seed=4)
    params = ASCC.preset("default", num_users=users, num_antennas=antennas)
    decision = plain.free_allocation(params, 40)
    beam = decision.beam_re + 1j * decision.beam_im
    h = complex_channel(instance)
    coupling = physics.coupling(h, beam)
    gamma = physics.sinr(instance, decision.power_w, beam)
    dual = duality.dual_power(coupling, gamma)
    assert (dual > 0).all()
    np.testing.assert_allclose(dual.sum(axis=-1), decision.power_w.sum(axis=-1), rtol=1e-8)
    np.testing.assert_allclose(duality.downlink_power(coupling, gamma), decision.power_w, rtol=1e-8)
    for n in range(len(h)):
        by_hand = plain.uplink_sinr(h[n].tolist(), dual[n].tolist(), beam[n].tolist())
        assert by_hand == pytest.approx(gamma[n].tolist(), rel=1e-8)


def test_matrices_of_36_and_37() -> None:
    """(34), (35) with the matrices typed from the paper: minus signs off the diagonal."""
    instance, dual = channels(3, 3, n=5, seed=5)
    power, beam, gamma = actions.realise(instance, dual)
    for n, h in enumerate(complex_channel(instance)):
        psi = downlink_matrix(h, beam[n], gamma[n], -1.0)
        phi = downlink_matrix(h, beam[n], gamma[n], -1.0).T
        np.testing.assert_allclose(np.linalg.solve(psi, np.ones(3)), power[n], rtol=1e-9)
        np.testing.assert_allclose(np.linalg.solve(phi, np.ones(3)), dual[n], rtol=1e-9)
    gains = duality.couplings(duality.uplink(duality.gram(instance), dual))  # the same beams without their antennas
    np.testing.assert_allclose(gains, physics.coupling(complex_channel(instance), beam), rtol=1e-9, atol=1e-12)


def downlink_matrix(h: np.ndarray, beam: np.ndarray, gamma: np.ndarray, sign: float) -> np.ndarray:
    """Psi (36), with the sign off the diagonal as given; the printed one is +1. Phi (37) is its transpose."""
    users = len(h)
    size = [[abs(np.vdot(h[k], beam[j])) ** 2 for j in range(users)] for k in range(users)]
    return np.array([[size[k][k] / gamma[k] if k == j else sign * size[k][j] for j in range(users)]
                     for k in range(users)])  # fmt: skip


def test_printed_signs_do_not_give_the_sinrs() -> None:
    errors: dict[int, list[float]] = {2: [], 4: []}
    negative = 0
    for users, found in errors.items():
        instance, dual = channels(users, users, n=100, seed=6)
        _, beam, gamma = actions.realise(instance, dual)
        for n, h in enumerate(complex_channel(instance)):
            power = np.linalg.solve(downlink_matrix(h, beam[n], gamma[n], 1.0), np.ones(users))
            negative += bool((power < 0).any())
            reached = np.array(plain.sinr(h.tolist(), power.tolist(), beam[n].tolist()))
            found += np.abs(reached / gamma[n] - 1.0).tolist()
    assert np.median(errors[2]) > 0.05
    assert np.median(errors[4]) > 0.1
    assert negative > 10


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32), st.floats(0.0, 30.0))
def test_no_beam_has_a_larger_uplink_sinr_than_mmse(users: int, antennas: int, seed: int, spread_db: float) -> None:
    instance, dual = channels(users, antennas, n=1, seed=seed, spread_db=spread_db)
    _, beam, gamma = actions.realise(instance, dual)
    h = complex_channel(instance)[0]
    rng = np.random.default_rng(seed)
    for scale in (10.0, 1.0, 0.1, 1e-3):
        noise = rng.standard_normal((20, users, 2 * antennas)).view(complex)
        other = beam[0] + scale * noise
        other /= np.linalg.norm(other, axis=-1, keepdims=True)
        received = np.abs(np.einsum("ja,bia->bij", h.conj(), other)) ** 2 * dual[0]
        own = np.einsum("bii->bi", received)
        reached = own / (received.sum(axis=-1) - own + 1.0)
        assert (reached <= gamma[0] * (1 + 1e-9)).all()


def test_every_downlink_is_met_by_some_dual_power() -> None:
    """The dual powers of any beams and powers, with MMSE beams, raise every SINR: q spans all that matters."""
    instance, _ = channels(4, 4, seed=7)
    decision = plain.free_allocation(ASCC.preset("default"), 40)
    beam = decision.beam_re + 1j * decision.beam_im
    gamma = physics.sinr(instance, decision.power_w, beam)
    dual = duality.dual_power(physics.coupling(complex_channel(instance), beam), gamma)
    assert (actions.realise(instance, dual)[2] >= gamma * (1 - 1e-9)).all()


def test_a_user_without_power_has_none_and_disturbs_nobody() -> None:
    instance, dual = channels(4, 4, seed=8)
    dual[:, 1] = 0.0
    power, beam, gamma = actions.realise(instance, dual)
    np.testing.assert_allclose(power[:, 1], 0.0, atol=1e-14)
    np.testing.assert_array_equal(gamma[:, 1], 0.0)
    np.testing.assert_allclose(np.linalg.norm(beam, axis=-1), 1.0, rtol=1e-12)
    rest = [0, 2, 3]
    alone = type(instance)(instance.channel_re[:, rest], instance.channel_im[:, rest])
    np.testing.assert_allclose(actions.realise(alone, dual[:, rest])[2], gamma[:, rest], rtol=1e-10)


@pytest.mark.parametrize("power_w", [1e-6, 1.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("kind", ["parallel", "one antenna", "nearly parallel", "random"])
def test_dependent_channels(kind: str, power_w: float) -> None:
    """Channels that no beam can separate, up to a signal 100 dB above the noise: finite, dual, feasible."""
    rng = np.random.default_rng(9)
    antennas = 1 if kind == "one antenna" else 3
    own = rng.standard_normal((20, 3, antennas, 2))
    if kind == "parallel":
        own = own[:, :1] * np.array([1.0, -0.3, 2.0])[:, None, None]
    elif kind == "nearly parallel":
        own = own[:, :1] + 1e-5 * own
    instance = ASCC.Instance(own[..., 0].copy(), own[..., 1].copy())
    dual = power_w * rng.dirichlet(np.ones(3), 20)
    power, beam, gamma = actions.realise(instance, dual)
    assert np.isfinite(gamma).all()
    assert (power >= 0).all()
    np.testing.assert_allclose(power.sum(axis=-1), power_w, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(beam, axis=-1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(physics.sinr(instance, power, beam), gamma, rtol=1e-5)
    if antennas == 1:  # all the power of the others is heard
        strength = (own**2).sum(axis=(-1, -2)) * dual
        np.testing.assert_allclose(gamma, strength / (1.0 + strength.sum(-1, keepdims=True) - strength), rtol=1e-7)


@pytest.mark.parametrize("preset", PRESETS)
def test_float32_and_torch_agree(preset: str) -> None:
    torch = pytest.importorskip("torch")
    params, instance, _ = plain.case(preset, n=200)
    dual = params.max_power_w * np.random.default_rng(0).dirichlet(np.ones(params.num_users), 200)
    expected = actions.realise(instance, dual)
    single = actions.realise(instance.map(lambda x: x.astype(np.float32)), dual.astype(np.float32))
    assert [x.dtype.name for x in single] == ["float32", "complex64", "float32"]
    tensors = actions.realise(instance.to_torch(), torch.tensor(dual))
    for got, tolerance in ((single, 1e-3), (tensors, 1e-10)):
        power, _, gamma = (np.asarray(x) for x in got)
        np.testing.assert_allclose(power, expected[0], rtol=tolerance, atol=tolerance * params.max_power_w)
        np.testing.assert_allclose(gamma, expected[2], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(single[1], axis=-1), 1.0, atol=1e-6)


def test_gradient_of_the_sinr() -> None:
    torch = pytest.importorskip("torch")
    instance, dual = channels(4, 4, n=5, seed=10)
    leaf = torch.tensor(dual, requires_grad=True)
    tensors = instance.to_torch()
    for user in range(4):
        leaf.grad = None
        gamma = physics.sinr(tensors, *actions.realise(tensors, leaf)[:2])  # through powers and beams
        gamma[:, user].sum().backward()
        for j in range(4):
            shift = 1e-6 * np.eye(4)[j]
            ends = [actions.realise(instance, dual + s * shift)[2][:, user] for s in (-1, 1)]
            np.testing.assert_allclose(leaf.grad[:, j].numpy(), (ends[1] - ends[0]) / 2e-6, rtol=1e-5, atol=1e-7)
