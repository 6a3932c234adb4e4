"""The equations of the MU-ASCC paper in plain Python, one number at a time, for tests to compare with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym import envs
from semcom_gym.envs import curve

ASCC = envs.problem("ascc")
PRESETS = ["default", "paper", "two_user", "three_user", "hard", "measured"]
CURVES = Path(curve.__file__).parent / "ascc" / "curves"
COLUMNS = ("rate_bit", "source_distortion", "channel_distortion", "slope", "midpoint")
Row = tuple[float, float, float, float, float]


def codecs(name: str) -> list[Row]:
    """Rows of a shipped rate table: R_s, d_s, d_c, a_1, a_0."""
    parameters = json.loads((CURVES / f"{name}.json").read_text())["parameters"]
    return list(zip(*(parameters[key] for key in COLUMNS), strict=True))


def own_table(path: Path, base: str = "synthetic_data", **changes: Any) -> str:
    """A curve file like a shipped one with other columns; ``...`` drops one."""
    data = json.loads((CURVES / f"{base}.json").read_text())
    columns = data["parameters"] | changes
    data |= {"name": path.stem, "parameters": {key: value for key, value in columns.items() if value is not ...}}
    path.write_text(json.dumps(data))
    return str(path)


def log10_q(x: float) -> float:
    """log10 of the normal tail Q(x): by erfc, far out by Laplace's continued fraction."""
    if x < 6.0:
        return math.log10(0.5 * math.erfc(x / math.sqrt(2.0)))
    fraction = x
    for k in range(200, 0, -1):
        fraction = x + k / fraction
    return (-0.5 * x * x - math.log(fraction) - 0.5 * math.log(2.0 * math.pi)) / math.log(10.0)


def argument(gamma: float, code_rate: float, blocklength: float) -> float:
    """What (8) takes Q of, with log2 e outside the root; written so that small SINRs keep their digits."""
    dispersion = gamma * (2.0 + gamma) / (1.0 + gamma) ** 2
    capacity = math.log1p(gamma) / math.log(2.0)
    return math.sqrt(blocklength) * (capacity - code_rate) / (math.sqrt(dispersion) * math.log2(math.e))


def log10_bit_error(gamma: float, code_rate: float, blocklength: float) -> float:
    """(14)."""
    return log10_q(argument(gamma, code_rate, blocklength)) - math.log10(code_rate * blocklength)


def logistic(row: Row, bit_error: float) -> float:
    """(12), (13) at the logarithm of a bit error rate."""
    _, source, channel, slope, midpoint = row
    return source + channel / (1.0 + math.exp(min(-slope * (bit_error - midpoint), 700.0)))


def distortion(row: Row, gamma: float, channel_uses: float, blocklength: float) -> float:
    """(12), (13) at a SINR, with R_c = R_s / T."""
    return logistic(row, log10_bit_error(gamma, row[0] / channel_uses, blocklength))


def best(rows: list[Row], gamma: float, channel_uses: float, blocklength: float) -> tuple[int, float]:
    """The codec of least distortion, by trying all, and that distortion."""
    found = [distortion(row, gamma, channel_uses, blocklength) for row in rows]
    return found.index(min(found)), min(found)


def tables(params: Any) -> list[list[Row]]:
    """The rate table of every user."""
    names = [params.data_table] * params.data_users
    names += [params.semantic_table] * (params.num_users - params.data_users)
    return [codecs(name) for name in names]


def inner(a: list[complex], b: list[complex]) -> complex:
    """a^H b."""
    return sum(x.conjugate() * y for x, y in zip(a, b, strict=True))


def sinr(
    channel: list[list[complex]], power: list[float], beam: list[list[complex]], noise: float = 1.0
) -> list[float]:
    """(7) of every user."""
    found = []
    for i, h in enumerate(channel):
        heard = [p * abs(inner(h, w)) ** 2 for p, w in zip(power, beam, strict=True)]
        found.append(heard[i] / (sum(heard[:i] + heard[i + 1 :]) + noise))
    return found


def uplink_sinr(channel: list[list[complex]], power: list[float], beam: list[list[complex]]) -> list[float]:
    """(33) of every user."""
    found = []
    for i, w in enumerate(beam):
        heard = [q * abs(inner(h, w)) ** 2 for q, h in zip(power, channel, strict=True)]
        found.append(heard[i] / (sum(heard[:i] + heard[i + 1 :]) + 1.0))
    return found


def vectors(real: np.ndarray, imaginary: np.ndarray) -> list[list[complex]]:
    """Rows (K, N_t) as lists of complex numbers."""
    return (real + 1j * imaginary).tolist()


def case(preset: str, n: int = 4, seed: int = 0, **overrides: Any) -> tuple[Any, Any, np.ndarray]:
    """Parameters, instances and actions inside the space."""
    params = ASCC.preset(preset, **overrides)
    rng = np.random.default_rng(seed)
    instance = ASCC.sample(params, rng, n)
    return params, instance, rng.uniform(-0.9, 0.9, (n, ASCC.action_layout(params).size))


def free_allocation(params: Any, n: int, seed: int = 1) -> Any:
    """Random powers, unit beams and codecs that no action map has touched."""
    rng = np.random.default_rng(seed)
    shape = (n, params.num_users, params.num_antennas)
    beam = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    beam /= np.linalg.norm(beam, axis=-1, keepdims=True)
    power = params.max_power_w * rng.dirichlet(np.ones(params.num_users), n) * rng.uniform(0.3, 1.0, (n, 1))
    index = np.floor(rng.random(shape[:2]) * params.rate_counts)
    return ASCC.Allocation(power, beam.real.copy(), beam.imag.copy(), index)
