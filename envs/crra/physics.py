"""The equations of the CRRA paper, in its order, on NumPy arrays or torch tensors (n, U).

Symbols: B_i bandwidth, P_i power, o_i compression ratio, beta_i selection, delta_i gain, d0 payload, t0 deadline.
"""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import Array, Batch, at_least, at_most, erfc, largest, namespace, total
from semcom_gym.envs.crra.instance import Instance, Params
from semcom_gym.envs.outcome import Outcome

LN2 = 0.6931471805599453
# Above this spectral efficiency [bit/s/Hz] success is zero to any precision; the cap keeps 2**e finite in float32.
MAX_EFFICIENCY = 60.0
TINY_HZ = 1e-3
TINY_W = 1e-18


@dataclasses.dataclass(frozen=True)
class Allocation(Batch):
    """A decision. The entries of a user that is not selected count for nothing."""

    # (n, U) bandwidth [Hz] and transmit power [W]
    bandwidth_hz: Array
    power_w: Array
    # (n, U) share of the features that is not sent, 0..max_ratio
    ratio: Array
    # (n, U) 1 if the user is served, 0 if left out
    selected: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Allocation behind its first axis."""
    return {field.name: (params.num_users,) for field in dataclasses.fields(Allocation)}


def required_efficiency(params: Params, bandwidth_hz: Array, ratio: Array) -> Array:
    """Spectral efficiency [bit/s/Hz] that meets the deadline: a_i (1 - o_i) with a_i = d0 / (B_i t0), from (6)-(7)."""
    bandwidth = at_least(bandwidth_hz, TINY_HZ)
    efficiency = (1.0 - ratio) * (params.payload_bit / params.deadline_s) / bandwidth
    return at_most(efficiency, MAX_EFFICIENCY)


def outage_argument(params: Params, bandwidth_hz: Array, power_w: Array, ratio: Array, gain: Array) -> Array:
    """Argument of the Q function in Lemma 1: (2**(a_i (1 - o_i)) - 1) / (b_i delta_i), b_i = P_i / (N0 B_i)."""
    xp = namespace(bandwidth_hz)
    needed = xp.expm1(LN2 * required_efficiency(params, bandwidth_hz, ratio))
    # the SNR first: the gradient squares the divisor, which must not leave the range of float32
    noise = params.noise_psd_w_hz * at_least(bandwidth_hz, TINY_HZ)
    return needed / (at_least(power_w, TINY_W) * gain / noise)


def transmission_success(params: Params, argument: Array) -> Array:
    """P(t_i <= t0): 2 Q(x) = erfc(x / sqrt 2), Lemma 1 (8); or exp(-x**2 / 2), the approximation in (20)."""
    if params.success == "exact":
        return erfc(0.7071067811865476 * argument)
    return namespace(argument).exp(-0.5 * argument * argument)


def task_performance(ratio: Array, zeta: tuple[Array, Array, Array, Array]) -> Array:
    """eta(o) = zeta1 exp(zeta2 o) + zeta3 exp(zeta4 o) (Section III-D), kept in [0, 1]: a fit may leave it."""
    xp = namespace(ratio)
    eta = zeta[0] * xp.exp(zeta[1] * ratio) + zeta[2] * xp.exp(zeta[3] * ratio)
    return at_most(at_least(eta, 0.0), 1.0)


def user_zeta(params: Params, instance: Instance) -> tuple[Array, Array, Array, Array]:
    """zeta1..zeta4 of every user: floats where all users share one curve, else arrays (n, U)."""
    table = params.curve_table
    if len(table) == 1:
        z1, z2, z3, z4 = table[0].tolist()
        return z1, z2, z3, z4
    xp = namespace(instance.gain)
    columns = []
    for column in table.T:
        values = xp.asarray(column, dtype=instance.gain.dtype, device=instance.gain.device)
        columns.append(values[instance.curve])
    return columns[0], columns[1], columns[2], columns[3]


def evaluate(params: Params, instance: Instance, allocation: Allocation) -> Outcome:
    """The objective (13), the constraints (14a)-(14f) and the quantities of every user."""
    b, p, o, beta = allocation.bandwidth_hz, allocation.power_w, allocation.ratio, allocation.selected
    argument = outage_argument(params, b, p, o, instance.gain)
    transmission = transmission_success(params, argument)
    task = task_performance(o, user_zeta(params, instance))
    success = task * transmission  # (11)
    value = beta * instance.weight * success
    return Outcome(
        objective=total(value),
        violation=violations(params, instance, allocation),
        terms={
            "success": beta * success,
            "transmission": transmission,
            "task": task,
            "weighted_success": value,
            "bandwidth_hz": beta * b,
            "power_w": beta * p,
            "ratio": o,
            "selected": beta,
        },
    )


def violations(params: Params, instance: Instance, allocation: Allocation) -> dict[str, Array]:
    """Relative excess of each constraint, (n,), 0 where it holds."""
    xp = namespace(allocation.ratio)
    beta = allocation.selected

    def shortfall(amount: Array, floor: float) -> Array:
        return at_least(largest(beta * (1.0 - amount / floor)), 0.0)

    unserved = beta * (1.0 - beta) if params.selection else 1.0 - beta
    ratio_excess = xp.maximum(allocation.ratio - params.max_ratio, -allocation.ratio)
    bandwidth_used = total(beta * allocation.bandwidth_hz)
    power_used = total(beta * allocation.power_w)
    return {
        "bandwidth": at_least(bandwidth_used / instance.bandwidth_hz - 1.0, 0.0),  # (14a)
        "min_bandwidth": shortfall(allocation.bandwidth_hz, params.min_bandwidth_hz),  # (14b)
        "power": at_least(power_used / instance.power_w - 1.0, 0.0),  # (14c)
        "min_power": shortfall(allocation.power_w, params.min_power_w),  # (14d)
        "ratio": at_least(largest(beta * ratio_excess), 0.0),  # (14e)
        "selection": largest(xp.abs(unserved)),  # (14f), or beta_i = 1 where all must be served
    }
