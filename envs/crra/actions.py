"""From a flat action in [-1, 1] to an allocation that meets every budget, back, and what a policy observes."""

from __future__ import annotations

import numpy as np

from semcom_gym.envs import simplex
from semcom_gym.envs.arrays import Array, at_least, at_most, namespace, straight_through
from semcom_gym.envs.crra import physics
from semcom_gym.envs.crra.instance import Instance, Params
from semcom_gym.envs.crra.physics import Allocation
from semcom_gym.envs.outcome import require_feasible

PROBE_RATIOS = (0.0, 0.8, 0.9, 0.97)
USER_FEATURES = ("gain", "snr", "weight", *(f"task_performance@{o:g}" for o in PROBE_RATIOS))
GLOBAL_FEATURES = ("bandwidth", "power", "bandwidth_floor", "power_floor", "users")
GATE_SLOPE = 4.0
MARGIN = 1e-9  # a floor that fits a budget exactly must survive rounding


def action_blocks(params: Params) -> tuple[str, ...]:
    """Names of the blocks of an action; each block has one entry per user."""
    blocks = ("bandwidth", "power", "ratio")
    return (*blocks, "selection") if params.selection else blocks


def decode(params: Params, instance: Instance, action: Array) -> Allocation:
    """The allocation that an action (n, blocks * U) stands for; entries outside [-1, 1] are clipped.

    bandwidth, power: shares of what is left above the floors (:mod:`semcom_gym.envs.simplex`).
    ratio: o = max_ratio * (1 - ((1 - a) / 2)**2), fine where o is large.
    selection: the users with a > 0, at most as many as the floors allow, largest first.
    """
    xp = namespace(action)
    blocks = len(action_blocks(params))
    a = xp.reshape(at_most(at_least(action, -1.0), 1.0), (action.shape[0], blocks, -1))
    selected = _select(params, instance, a[:, 3]) if params.selection else xp.ones_like(a[:, 2])
    half = 0.5 * (1.0 - a[:, 2])
    bandwidth_weight = simplex.action_to_weight(a[:, 0])
    power_weight = simplex.action_to_weight(a[:, 1])
    return Allocation(
        bandwidth_hz=simplex.split_budget(bandwidth_weight, instance.bandwidth_hz, params.min_bandwidth_hz, selected),
        power_w=simplex.split_budget(power_weight, instance.power_w, params.min_power_w, selected),
        ratio=params.max_ratio * (1.0 - half * half),
        selected=selected,
    )


def encode(params: Params, instance: Instance, allocation: Allocation) -> Array:
    """The float64 action (n, blocks * U) that decodes to ``allocation``.

    A budget that is not used up is handed out in proportion to the users' shares above their floors, which never
    lowers the objective. Raises ValueError for an allocation that breaks a constraint.
    """
    require_feasible(physics.violations(params, instance, allocation))
    on = allocation.selected
    blocks = [
        simplex.weight_to_action(on * np.maximum(allocation.bandwidth_hz - params.min_bandwidth_hz, 0.0)),
        simplex.weight_to_action(on * np.maximum(allocation.power_w - params.min_power_w, 0.0)),
        1.0 - 2.0 * np.sqrt(np.clip(1.0 - allocation.ratio / params.max_ratio, 0.0, 1.0)),
    ]
    if params.selection:
        blocks.append(np.where(on > 0.5, 1.0, -1.0))
    return np.concat(blocks, axis=-1)


def capacity(params: Params, instance: Instance) -> Array:
    """(n,) how many users the floors allow at most."""
    xp = namespace(instance.power_w)
    by_bandwidth = instance.bandwidth_hz / params.min_bandwidth_hz
    by_power = instance.power_w / params.min_power_w
    return xp.floor(xp.minimum(by_bandwidth, by_power) * (1.0 + MARGIN) + MARGIN)


def _select(params: Params, instance: Instance, score: Array) -> Array:
    xp = namespace(score)
    users = score.shape[-1]
    order = xp.arange(users, device=score.device)
    ahead = score[:, None, :] > score[:, :, None]
    tied = (score[:, None, :] == score[:, :, None]) & (order[None, None, :] < order[None, :, None])
    rank = xp.sum(xp.astype(ahead | tied, score.dtype), axis=-1)
    hard = xp.astype((score > 0) & (rank < capacity(params, instance)[:, None]), score.dtype)
    return straight_through(hard, 1.0 / (1.0 + xp.exp(-GATE_SLOPE * score)))


def observe(params: Params, instance: Instance) -> Array:
    """The observation (n, U * len(USER_FEATURES) + len(GLOBAL_FEATURES)): user rows, then the cell's own features.

    gain: (10 log10 delta + 110) / 20. snr: 10 log10(Pmax delta / (N0 Bmax)) / 20, the whole budget on the user.
    weight: as is. task_performance@o: eta at that ratio. bandwidth: log10(Bmax t0 / d0). power: Pmax in dBm / 20.
    floors: share of the budget that the minimums of all users take. users: 10 / U.
    """
    xp = namespace(instance.gain)
    gain_db = 10.0 * xp.log10(instance.gain)
    power_db = 10.0 * xp.log10(instance.power_w)
    density_db = power_db - 10.0 * xp.log10(instance.bandwidth_hz) - (params.noise_psd_dbm_hz - 30.0)
    zeta = physics.user_zeta(params, instance)
    # one number for all users where they share a curve
    ones = xp.ones_like(instance.gain[:1, :1] if len(params.curve_table) == 1 else instance.gain)
    shape = tuple(instance.gain.shape)
    probes = [xp.broadcast_to(physics.task_performance(o * ones, zeta), shape) for o in PROBE_RATIOS]
    rows = xp.stack(
        [(gain_db + 110.0) / 20.0, (gain_db + density_db[:, None]) / 20.0, instance.weight, *probes], axis=-1
    )
    users = params.num_users
    cell = xp.stack(
        [
            xp.log10(instance.bandwidth_hz * (params.deadline_s / params.payload_bit)),
            (power_db + 30.0) / 20.0,
            users * params.min_bandwidth_hz / instance.bandwidth_hz,
            users * params.min_power_w / instance.power_w,
            (10.0 / users) * xp.ones_like(instance.power_w),
        ],
        axis=-1,
    )
    return xp.concat([xp.reshape(rows, (rows.shape[0], -1)), cell], axis=-1)
