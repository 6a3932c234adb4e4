"""Prices and a makespan at which all devices' own minima (:mod:`device`) fit together: Newton's method, batched.

The unknowns are ln lam, ln T and every ln beta_n; the equations say that bandwidths add up to the budget, the beta_n to
omega_1 (23c), and that every device needs T (30). Each beta_n meets only its own time, so a step is two equations in
ln lam and ln T. All but power laws in these logarithms, they take six to twelve steps.

A device whose mode is OPEN mixes its two modes, with the weight of the low one the logistic function of an unknown z
and temperature * z = (value of the high mode) - (value of the low mode). As the temperature falls, the prices go to
those of the convexified problem, whose dual value is the largest lower bound that prices can prove, and all but a few
weights go to 0 or 1.
"""

from __future__ import annotations

import dataclasses
import math

from semcom_gym.baselines.training.device import Devices, Response, of_device
from semcom_gym.envs.arrays import (
    Array,
    Batch,
    at_least,
    at_most,
    copied,
    largest,
    logistic,
    namespace,
    rows_where,
    total,
)
from semcom_gym.envs.training.physics import Allocation

HIGH, LOW, OPEN = 0, 1, 2  # the mode of a device
CONVERGED = 1e-11
ROUNDS = 14  # of STEPS steps at most, for those that have not converged
STEPS = 6
STEEP = 1e-6  # least slope taken: with all caps met, T_n does not depend on beta_n, nor B_n on lam
# share of a step and least slope of the rounds: shorter steps, and from flat regions, end a cycle around a cap's corner
PACES = ((1.0, STEEP), (1.0, STEEP), (1.0, STEEP), (0.5, STEEP), (1.0, 0.05), (1.0, STEEP), (0.25, 0.05))
WARM, COLD = 0.1, 6e-6  # temperatures, over omega_1 T
AGAIN = 4.0 * COLD  # temperature at which a problem is taken up again that differs in a device or two
COOLING = ((0.25, 3), (0.5, 6))  # factor and steps of a temperature
TRACKED = 1e-4  # residual above which the second cooling is tried
LONGEST = 2.0  # change of a logarithm in a step
WORTHLESS = -34.0  # ln of the price of all bandwidth over omega_1 T at which it counts as free
MOST = 25.0  # of the log-odds of a mode


@dataclasses.dataclass(frozen=True)
class State(Batch):
    """Where Newton's method stands."""

    # (n, 1) ln lam; (n, N) ln beta; (n, 1) ln T
    log_lam: Array
    log_beta: Array
    log_time: Array
    # (n, N) ln S of the low mode, and log-odds of the low mode where OPEN
    low: Array
    tilt: Array
    # (n,) the largest error of an equation (a logarithm)
    residual: Array


@dataclasses.dataclass
class _Mix:
    """Times and bandwidths (n, N) of the modes' mixture, and z; of each, slopes in ln lam and ln beta, and one more:
    of times and bandwidths the change that the error of z makes, of z that error (it comes first).
    """

    time: Array
    time_by: list[Array]
    band: Array
    band_by: list[Array]
    tilt_by: list[Array]

    @classmethod
    def of(cls, alone: Response) -> _Mix:
        """Of one mode of every device."""
        xp = namespace(alone.time)
        time, band = xp.exp(alone.time), xp.exp(alone.band)
        blank = [xp.zeros_like(time) for _ in range(5)]
        return cls(
            time, [*(time * x for x in alone.time_by), blank[0]],
            band, [*(band * x for x in alone.band_by), blank[1]], blank[2:],
        )  # fmt: skip


def start(devices: Devices) -> State:
    """Equal beta, a price that makes bandwidth about as dear as time."""
    xp, params = namespace(devices.knee), devices.params
    blank = xp.zeros_like(devices.knee)
    log_lam = xp.full_like(blank[:, :1], math.log(params.time_weight / params.total_bandwidth_hz))
    log_beta = xp.full_like(blank, math.log(params.time_weight / blank.shape[1]))
    response = devices.high(log_lam, log_beta)
    longest = largest(xp.exp(response.time) + devices.clocks(log_beta)[2])[:, None]
    return State(log_lam, log_beta, xp.log(longest), devices.left, blank, xp.full_like(blank[:, 0], math.inf))


def solve(devices: Devices, mode: Array, state: State, rounds: int = ROUNDS) -> State:
    """The equilibrium from ``state`` with every device in its mode (n, N), none OPEN; residual says how close."""
    state = _settle(devices, mode, state, STEPS, None, *PACES[0])
    rows = rows_where(~(state.residual < CONVERGED))
    for k in range(1, rounds):
        if not len(rows):
            break
        part = _settle(devices.take(rows), mode[rows], state[rows], STEPS, None, *PACES[k % len(PACES)])
        state = state.replaced(rows, part)
        rows = rows[rows_where(~(part.residual < CONVERGED))]
    return state


def relax(devices: Devices, mode: Array, state: State) -> State:
    """The equilibrium of the convexified problem, OPEN devices mixing their modes, cooled down to COLD.

    Where Newton's method loses track, once more and more slowly; residual says how close it is in the end.
    """
    found = _cool(devices, mode, state, WARM, *COOLING[0])
    lost = rows_where(~(found.residual < TRACKED))
    if len(lost):
        again = _cool(devices.take(lost), mode[lost], state[lost], WARM, *COOLING[1])
        better = rows_where(again.residual < found.residual[lost])
        found = found.replaced(lost[better], again[better])
    return found


def relax_again(devices: Devices, mode: Array, state: State) -> State:
    """:func:`relax` from the ``state`` it found for nearly the same problem: from AGAIN, and only once."""
    return _cool(devices, mode, state, AGAIN, *COOLING[0])


def _cool(devices: Devices, mode: Array, state: State, warm: float, factor: float, steps: int) -> State:
    """Newton's method, ``steps`` a temperature from ``warm`` on, each ``factor`` times the last."""
    stages = math.ceil(math.log(COLD / warm) / math.log(factor)) + 1
    for k in range(stages):
        low = devices.look(state.log_lam, state.log_beta)
        if k:
            low = namespace(low).where(state.low >= devices.stop, low, state.low)
        last = k == stages - 1
        state = dataclasses.replace(state, low=low)
        state = _settle(devices, mode, state, 6 if last else steps, COLD if last else warm * factor**k)
    return state


def respond(devices: Devices, mode: Array, state: State) -> Response:
    """What devices do in their mode (n, N), none OPEN."""
    return _alone(devices, rows_where((mode != HIGH).reshape(-1)), state)


def _alone(devices: Devices, low: Array, state: State) -> Response:
    """What the flat devices ``low`` do in their low mode, the others in their high mode."""
    found = devices.high(state.log_lam, state.log_beta)
    if len(low):
        for into, value in zip(found.arrays(), _low(devices, low, state).arrays(), strict=True):
            into.reshape(-1)[low] = value
    return found


def decide(devices: Devices, mode: Array, state: State) -> Allocation:
    """The allocation at the prices of ``state``, bandwidths scaled down to the budget where they are above it."""
    xp, params = namespace(mode), devices.params
    response = respond(devices, mode, state)
    clock, bs_clock = devices.clocks(state.log_beta)[:2]
    band = xp.exp(response.band)
    band = band * at_most(params.total_bandwidth_hz / _sum(band), 1.0)
    share = at_most(xp.exp(response.snr) * band / devices.reach, 1.0)  # of the power cap
    ratio = at_most(devices.ratio(xp.log(share * devices.reach / band)), devices.most)
    return Allocation(params.max_power_w * share, band, xp.exp(clock), xp.exp(bs_clock), ratio)


def _low(devices: Devices, cells: Array, state: State) -> Response:
    log_lam = of_device(state.log_lam, state.low)[cells]
    return devices.low(cells, log_lam, state.log_beta.reshape(-1)[cells], state.low.reshape(-1)[cells])


def _settle(
    devices: Devices, mode: Array, state: State, steps: int, temperature: float | None, pace: float = 1.0,
    steep: float = STEEP,
) -> State:  # fmt: skip
    """Steps of Newton's method. temperature: of the OPEN devices; None where there are none."""
    cells, is_open = rows_where((mode != HIGH).reshape(-1)), mode == OPEN
    state = dataclasses.replace(state, low=copied(state.low))  # followed in place
    for _ in range(steps):
        if temperature is None:
            alone = _alone(devices, cells, state)
            state.low.reshape(-1)[cells] = alone.snr.reshape(-1)[cells]
            mix = _Mix.of(alone)
        else:
            warmth = temperature * devices.params.time_weight * namespace(mode).exp(state.log_time)
            mix = _mix(devices, cells, is_open, state, warmth)
        state = _step(devices, is_open, state, mix, pace, steep)
        if state.residual.max() < CONVERGED:
            break
    return state


def _mix(devices: Devices, cells: Array, is_open: Array, state: State, warmth: Array) -> _Mix:
    high = devices.high(state.log_lam, state.log_beta)
    mix = _Mix.of(high)
    if not len(cells):
        return mix
    xp, low = namespace(cells), _low(devices, cells, state)
    state.low.reshape(-1)[cells] = low.snr
    lam, scale = (of_device(x, is_open)[cells] for x in (xp.exp(state.log_lam), warmth))
    flat = (state.log_beta, state.tilt, is_open, mix.time, mix.band, high.snr, devices.joule)
    log_beta, z, is_open, t_high, b_high, snr, joule = (x.reshape(-1)[cells] for x in flat)
    beta, t_low, b_low = xp.exp(log_beta), xp.exp(low.time), xp.exp(low.band)
    energy = xp.exp(snr) * t_high * b_high - xp.exp(low.snr) * t_low * b_low
    by_lam, by_beta = lam * (b_high - b_low), beta * (t_high - t_low)  # of the low mode's advantage
    tilt_by = [(joule * energy + by_beta + by_lam) / scale - z, by_lam / scale, by_beta / scale]
    weight = xp.where(is_open, logistic(z), 1.0)
    spread = xp.where(is_open, weight * (1.0 - weight), 0.0)
    for into, slopes, ends, by_high, by_low in (
        (mix.time, mix.time_by, (t_high, t_low), high.time_by, low.time_by),
        (mix.band, mix.band_by, (b_high, b_low), high.band_by, low.band_by),
    ):
        into.reshape(-1)[cells] = ends[0] + weight * (ends[1] - ends[0])
        turned = spread * (ends[1] - ends[0])
        slopes[2].reshape(-1)[cells] = turned * tilt_by[0]
        for k in range(2):
            own = (1.0 - weight) * ends[0] * by_high[k].reshape(-1)[cells] + weight * ends[1] * by_low[k]
            slopes[k].reshape(-1)[cells] = own + turned * tilt_by[k + 1]
    for array, value in zip(mix.tilt_by, tilt_by, strict=True):
        array.reshape(-1)[cells] = value
    return mix


def _step(devices: Devices, is_open: Array, state: State, mix: _Mix, pace: float, steep: float) -> State:
    """One step of Newton's method: d ln beta_n from each device's own equation, then two in d ln lam and d ln T."""
    xp = namespace(is_open)
    computing, computing_by = devices.clocks(state.log_beta)[2:]
    whole = mix.time + computing
    late = xp.log(whole) - state.log_time
    # d ln beta = (d ln T - owed - t_lam d ln lam) gain
    t_lam, owed = mix.time_by[0] / whole, late + mix.time_by[2] / whole
    gain = 1.0 / at_most((mix.time_by[1] + computing_by) / whole, -steep)
    beta = xp.exp(state.log_beta)
    error_beta = xp.log(_sum(beta) / devices.params.time_weight)
    shares = beta / _sum(beta) * gain
    b_lam, b_time, b_rest = -_sum(shares * t_lam), _sum(shares), _sum(shares * owed) - error_beta
    used = _sum(mix.band)
    error_band = xp.log(used / devices.params.total_bandwidth_hz)
    free = state.log_time + math.log(devices.params.time_weight / devices.params.total_bandwidth_hz) + WORTHLESS
    per = mix.band_by[1] * gain
    a_lam, a_time = at_most(_sum(mix.band_by[0] - per * t_lam) / used, -steep), _sum(per) / used
    a_rest = _sum(per * owed - mix.band_by[2]) / used - error_band
    determinant = a_lam * b_time - a_time * b_lam
    d_lam = xp.maximum(_clip((a_rest * b_time - a_time * b_rest) / determinant, LONGEST), free - state.log_lam)
    d_time = _clip((b_rest - b_lam * d_lam) / b_time, 0.5 * LONGEST)
    d_beta = _clip((d_time - owed - t_lam * d_lam) * gain, LONGEST)
    d_tilt = _clip(mix.tilt_by[0] + mix.tilt_by[1] * d_lam + mix.tilt_by[2] * d_beta, 1.5 * LONGEST)
    tilt = xp.where(is_open, _clip(state.tilt + pace * d_tilt, MOST), 0.0)
    error_band = xp.where((state.log_lam <= free + 0.1) & (error_band < 0), 0.0, error_band)  # some is left over
    errors = xp.maximum(xp.maximum(xp.abs(error_beta), xp.abs(error_band))[:, 0], largest(xp.abs(late)))
    return State(
        state.log_lam + pace * d_lam, state.log_beta + pace * d_beta,
        state.log_time + pace * d_time, state.low, tilt, errors,
    )  # fmt: skip


def _sum(x: Array) -> Array:
    return total(x)[..., None]


def _clip(x: Array, most: float) -> Array:
    return at_most(at_least(x, -most), most)
