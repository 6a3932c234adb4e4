"""Bad input to the MU-ASCC problem: one clear line that names the thing, or an answer that is well defined."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ascc_plain as plain
import gymnasium as gym
import numpy as np
import pytest
from ascc_plain import ASCC

from semcom_gym.envs import curve


def raises(kind: type[Exception], message: str) -> Any:
    """pytest.raises, and the message is a single line."""
    return pytest.raises(kind, match=message, check=lambda error: "\n" not in str(error))


ONES = ((1.0,) * 4,) * 4
BAD_PARAMETERS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_users": 0}, ValueError, "num_users must be >= 1, got 0"),
    ({"num_users": 2.5}, TypeError, "num_users must be an integer, got 2.5"),
    ({"num_antennas": 0}, ValueError, "num_antennas must be >= 1, got 0"),
    ({"blocklength": 0}, ValueError, "blocklength must be >= 1, got 0"),
    ({"blocklength": 256.0}, TypeError, "blocklength must be an integer, got 256.0"),
    ({"num_data_users": 5}, ValueError, "num_data_users 5 exceeds num_users 4"),
    ({"num_data_users": -1}, ValueError, "num_data_users must be >= 0, got -1"),
    ({"max_power_w": 0.0}, ValueError, "max_power_w must be finite, > 0, got 0.0"),
    ({"max_power_w": float("nan")}, ValueError, "max_power_w must be finite, > 0, got nan"),
    ({"channel_uses": 0}, ValueError, "channel_uses must be finite, > 0, got 0"),
    ({"channel_uses": -7000.0}, ValueError, "channel_uses must be finite, > 0, got -7000.0"),
    ({"channel_uses": 200.0}, ValueError, "channel_uses 200 leaves no room for a codeword of 256"),
    ({"weights": (0.5, 0.5)}, ValueError, r"weights must hold 4 numbers, one per user, got \(0.5, 0.5\)"),
    ({"weights": 0.25}, ValueError, "weights must hold 4 numbers, one per user, got 0.25"),
    ({"weights": (0.5, 0.5, 0.0, 0.5)}, ValueError, "weights must be finite, > 0, got 0.0"),
    ({"weights": [0.5, 0.5, -0.1, 0.5]}, ValueError, "weights must be finite, > 0, got -0.1"),
    ({"weights": (0.5, 0.5, "a", 0.5)}, TypeError, "weights must be a number, got 'a'"),
    ({"channel_correlation": 1.01}, ValueError, "channel_correlation must be finite, >= 0 and <= 1, got 1.01"),
    ({"gain_range_db": (8.0, -8.0)}, ValueError, r"gain_range_db must have low <= high, got \(8.0, -8.0\)"),
    ({"gain_range_db": (8.0,)}, ValueError, r"gain_range_db must be a pair \(low, high\), got \(8.0,\)"),
    ({"gain_range_db": 8.0}, ValueError, r"gain_range_db must be a pair \(low, high\), got 8.0"),
    ({"gain_range_db": (0.0, 300.0)}, ValueError, "gain_range_db must be finite, > -200 and <= 200, got 300.0"),
    ({"channel_matrix": ONES[:3]}, ValueError, "channel_matrix must have 4 rows of 4 numbers"),
    ({"channel_matrix": (*ONES[:3], (1.0, 1.0))}, ValueError, "channel_matrix must have 4 rows of 4 numbers"),
    ({"channel_matrix": np.ones((4, 4, 2))}, ValueError, "channel_matrix must have 4 rows of 4 numbers"),
    ({"channel_matrix": 1.0}, ValueError, "channel_matrix must have 4 rows of 4 numbers"),
    ({"channel_matrix": (*ONES[:3], ("a",) * 4)}, ValueError, "channel_matrix must have 4 rows of 4 numbers"),
    ({"channel_matrix": (*ONES[:3], (0.0,) * 4)}, ValueError, "channel_matrix must be finite, with no row of zeros"),
    ({"channel_matrix": (*ONES[:3], (np.nan,) * 4)}, ValueError, "channel_matrix must be finite, with no row of zeros"),
    ({"beamforming": "zf"}, ValueError, "unknown beamforming 'zf'; valid: duality, explicit"),
    ({"rate_action": "abs"}, ValueError, "unknown rate_action 'abs'; valid: relative, absolute"),
    ({"data_table": "bpg"}, ValueError, "unknown ascc curve 'bpg'; valid: .*synthetic_data.*a path"),
]


@pytest.mark.parametrize(("override", "kind", "message"), BAD_PARAMETERS)
def test_bad_parameters(override: dict[str, Any], kind: type[Exception], message: str) -> None:
    with raises(kind, message):
        gym.make("SemCom/ASCC-v0", **override)
    with raises(kind, message):
        gym.make_vec("SemCom/ASCC-v0", num_envs=2, vectorization_mode="vector_entry_point", **override)
    with raises(kind, message):
        ASCC.preset("default", **override)


def test_a_fixed_channel_of_another_size() -> None:
    with raises(ValueError, "channel_matrix must have 3 rows of 2 numbers"):
        gym.make("SemCom/ASCC-v0", preset="paper", num_users=3, weights=None)


def test_unknown_preset_of_another_problem() -> None:
    with raises(ValueError, "unknown ascc preset 'loose'; valid: default, paper, two_user, three_user, hard, measured"):
        gym.make("SemCom/ASCC-v0", preset="loose")


# --- instances and allocations ---------------------------------------------------------------------------------------
BAD_INSTANCES = [
    (0.0, "instance holds a user whose channel is zero"),
    (np.nan, "instance.channel_re has a value that is not finite"),
    (np.inf, "instance.channel_re has a value that is not finite"),
]


@pytest.mark.parametrize(("value", "message"), BAD_INSTANCES)
def test_bad_instances(value: float, message: str) -> None:
    params, instance, _ = plain.case("default", n=1)
    bad = instance.map(np.copy)
    bad.channel_re[0, 2] = value
    bad.channel_im[0, 2] = value
    decision = plain.free_allocation(params, 1)
    with raises(ValueError, message):
        ASCC.evaluate(params, bad, decision)
    with raises(ValueError, message):
        gym.make("SemCom/ASCC-v0").reset(options={"instance": bad})


def test_instances_of_another_size() -> None:
    params, _, _ = plain.case("default", n=1)
    other = plain.case("default", n=1, num_users=3)[1]
    with raises(ValueError, r"instance.channel_re must have shape \(1, 4, 4\), got \(1, 3, 4\)"):
        ASCC.evaluate(params, other, plain.free_allocation(params, 1))
    fewer = plain.case("hard", n=1)[1]
    with raises(ValueError, r"instance.channel_re must have shape \(1, 4, 4\), got \(1, 4, 2\)"):
        gym.make("SemCom/ASCC-v0").reset(options={"instance": fewer})


BAD_ALLOCATIONS = [
    ({"power_w": -0.5}, "allocation.power_w has a negative value: -0.5"),
    ({"power_w": np.nan}, "allocation.power_w has a value that is not finite"),
    ({"rate_index": -1.0}, "allocation.rate_index has a negative value: -1"),
    ({"rate_index": 22.5}, r"allocation.rate_index must be at most \[22, 22, 22, 22\], the last of each user's table"),
    ({"beam_im": np.inf}, "allocation.beam_im has a value that is not finite"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ALLOCATIONS)
def test_bad_allocations(change: dict[str, float], message: str) -> None:
    params, instance, _ = plain.case("default", n=1)
    good = plain.free_allocation(params, 1)
    assert ASCC.evaluate(params, instance, good).feasible.all()
    bad = dataclasses.replace(good, **{k: np.full_like(getattr(good, k), v) for k, v in change.items()})
    with raises(ValueError, message):
        ASCC.evaluate(params, instance, bad)


def test_allocations_of_another_shape() -> None:
    params, instance, _ = plain.case("default", n=1)
    good = plain.free_allocation(params, 1)
    with raises(ValueError, r"allocation.beam_re must have shape \(1, 4, 4\), got \(1, 4\)"):
        ASCC.evaluate(params, instance, dataclasses.replace(good, beam_re=good.beam_re[..., 0]))
    with raises(TypeError, "allocation must be a ascc Allocation, got dict"):
        ASCC.evaluate(params, instance, {})


# --- well-defined answers --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"num_antennas": 1},
        {"num_antennas": 2, "num_users": 8},
        {"channel_correlation": 1.0},  # parallel channels
        {"num_users": 2, "num_antennas": 2, "channel_matrix": ((1.0, 1j), (1.0, 1j))},
        {"num_users": 2, "num_antennas": 2, "channel_matrix": ((1e-9, 0.0), (0.0, 1e3))},
        {"max_power_w": 1e-12},
        {"max_power_w": 1e3},
        {"channel_uses": 256.0},  # one codeword, and no code rate below 9 bit per channel use
    ],
)
def test_hard_cases_have_an_answer(overrides: dict[str, Any], backend: str, dtype: str) -> None:
    """Fewer antennas than users, channels that no beam can separate, no signal, no time: finite and feasible."""
    if backend == "torch":
        pytest.importorskip("torch")
    env = gym.make_vec("SemCom/ASCC-v0", 16, "vector_entry_point", dtype=dtype, backend=backend, **overrides).unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for actions in (rng.uniform(-1, 1, env.action_space.shape), rng.choice([-1.0, 1.0], env.action_space.shape)):
        observation, reward, _, _, info = env.step(actions)
        assert np.isfinite(np.asarray(observation)).all()
        assert np.isfinite(np.asarray(reward)).all()
        assert np.asarray(info["final_info"]["feasible"]).all()
        worst = float(env.params.weight @ np.where(env.params.semantic, 0.995, 0.8))
        assert (np.asarray(reward) >= -worst - 1e-6).all()
        assert (np.asarray(reward) <= -0.02).all()


def test_a_stronger_signal_than_any_table_needs() -> None:
    """Beyond 120 dB the codecs are those of 120 dB."""
    params = ASCC.preset("two_user", max_power_w=1e14, channel_matrix=((1.0, 0.0), (0.0, 1.0)))
    instance = ASCC.sample(params, np.random.default_rng(0), 1)
    outcome = ASCC.play(params, instance, np.zeros((1, 4)))[0]
    np.testing.assert_allclose(outcome.terms["sinr_db"], 10 * np.log10(5e13), rtol=1e-9)
    assert outcome.terms["rate_index"].tolist() == [[22.0, 22.0]]
    np.testing.assert_allclose(outcome.terms["distortion"], outcome.terms["source_distortion"], rtol=1e-9)


# --- rate tables -----------------------------------------------------------------------------------------------------
RATES = [row[0] for row in plain.codecs("synthetic_data")]
SLOPES = [3.0] * 23
BAD_TABLES: list[tuple[dict[str, Any], str]] = [
    ({"rate_bit": RATES[::-1]}, "rate_bit must be positive and ascend"),
    ({"rate_bit": [RATES[0], *RATES[:-1]]}, "rate_bit must be positive and ascend"),
    ({"rate_bit": [-1.0, *RATES[1:]]}, "rate_bit must be positive and ascend"),
    ({"rate_bit": RATES[:-1]}, "source_distortion must be a list of two numbers or more, as long as rate_bit"),
    ({"slope": 3.0}, "slope must be a list of two numbers or more, as long as rate_bit"),
    ({"slope": [0.0, *SLOPES[1:]]}, "slope must be positive"),
    ({"slope": [SLOPES]}, "slope must be a list of two numbers or more, as long as rate_bit"),
    ({"source_distortion": [0.0] * 23}, "source_distortion must be positive"),
    ({"channel_distortion": [-0.1] * 23}, "channel_distortion must not be negative"),
    ({"midpoint": [-5.0] * 22 + ["low"]}, "parameter midpoint must be a finite number"),
    ({"midpoint": ...}, "lacks the parameters midpoint"),
    ({key: [1.0] for key in plain.COLUMNS}, "must be a list of two numbers or more"),
]


@pytest.mark.parametrize("field", ["data_table", "semantic_table"])
@pytest.mark.parametrize(("changes", "message"), BAD_TABLES)
def test_bad_tables(changes: dict[str, Any], message: str, field: str, tmp_path: Path) -> None:
    path = plain.own_table(tmp_path / "bad.json", **changes)
    with raises(ValueError, message):
        ASCC.preset("default", **{field: path})


def test_messages_about_tables_name_the_file(tmp_path: Path) -> None:
    path = plain.own_table(tmp_path / "backwards.json", rate_bit=RATES[::-1])
    with raises(ValueError, "backwards.json"):
        ASCC.preset("default", data_table=path)


def test_table_of_another_problem() -> None:
    other = Path(curve.__file__).parent / "crra" / "curves" / "resnet_0db.json"
    with raises(ValueError, "is for 'crra', not for 'ascc'"):
        ASCC.preset("default", data_table=str(other))


def test_a_changed_shipped_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.own_table(tmp_path / "synthetic_data.json", slope=[3.1] * 23)
    monkeypatch.setattr(curve, "_folder", lambda problem, kind: tmp_path)
    with raises(ValueError, r"shipped curve 'synthetic_data' is not the file this version pins \(SHA-256 differs\)"):
        ASCC.preset("default", max_power_w=5.0)


def test_tables_of_ones_own(tmp_path: Path) -> None:
    """Two codecs for data users, of which the higher is always too high; the shipped ones for semantic users."""
    columns = {"rate_bit": [1000.0, 1e7], "source_distortion": [0.3, 0.1], "channel_distortion": [0.5, 0.7]}
    path = plain.own_table(tmp_path / "mine.json", **columns, slope=[3.0, 3.0], midpoint=[-4.0, -9.0])
    env = gym.make("SemCom/ASCC-v0", data_table=path).unwrapped
    env.reset(seed=0)
    terms = env.step(np.zeros(8))[4]["terms"]
    assert terms["source_rate_bit"][:2].tolist() == [1000.0, 1000.0]
    assert env.params.rate_counts.tolist() == [2, 2, 23, 23]
    vector = gym.make_vec("SemCom/ASCC-v0", 3, "vector_entry_point", data_table=path)
    vector.reset(seed=0)
    final = vector.step(np.ones((3, 8)))[4]["final_info"]["terms"]
    np.testing.assert_array_equal(final["rate_index"], [[1.0, 1.0, 22.0, 22.0]] * 3)
