"""Episodes of a ``Fading`` id: users that walk, shadowing and fading that follow, and what the agent learns of them.

An episode is T blocks. Its start is an instance of the problem; the channel then changes from block to block, whatever
the agent does. Everything is made from uniform variates, row by row, so that scalar and vector environments agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.special

from semcom_gym.envs import channel, validate
from semcom_gym.envs.arrays import Array, copied

LIGHT_M_S = 299_792_458.0
LEAST_FADE = 1e-9  # of its mean: keeps a gain positive in float32


@dataclasses.dataclass(frozen=True)
class Fading:
    """How the channel of a problem changes over an episode; the defaults are the scenario ``walk``.

    horizon [T]: blocks of an episode. block_s: from one decision to the next. speed_range_m_s: every user's speed is
    uniform in it. carrier_hz: with the speed, the Doppler frequency. diversity [L]: independent taps whose mean power
    is the fading, 1 for Rayleigh. decorrelation_m: path after which the correlation of shadowing is 1/e. turn_m: path
    after which a user's heading has turned by a standard deviation of one radian. delay_blocks: age of the channel
    state that the agent sees. error_share: share of estimation error in the variance of an observed tap.
    energy_share: of the energy that full power in all blocks takes, how much an episode has (None: all of it).
    """

    horizon: int = 20
    block_s: float = 5e-3
    speed_range_m_s: tuple[float, float] = (0.3, 6.0)
    carrier_hz: float = 2e9
    diversity: int = 1
    decorrelation_m: float = 50.0
    turn_m: float = 20.0
    delay_blocks: int = 1
    error_share: float = 0.05
    energy_share: float | None = None

    def __post_init__(self) -> None:
        speeds = self.speed_range_m_s
        if not isinstance(speeds, (list, tuple)) or len(speeds) != 2:
            raise ValueError(f"speed_range_m_s must be a pair (low, high), got {validate.text(speeds)}")
        object.__setattr__(self, "speed_range_m_s", tuple(speeds))
        for end in speeds:
            validate.number("speed_range_m_s", end, open_low=False)
        validate.not_above("speed_range_m_s[0]", speeds[0], "speed_range_m_s[1]", speeds[1])
        validate.integer("horizon", self.horizon)
        validate.integer("diversity", self.diversity)
        validate.integer("delay_blocks", self.delay_blocks, low=0)
        for name in ("block_s", "carrier_hz", "decorrelation_m", "turn_m"):
            validate.number(name, getattr(self, name))
        validate.number("error_share", self.error_share, high=1.0, open_low=False)
        if self.energy_share is not None:
            validate.number("energy_share", self.energy_share, high=1.0)

    @property
    def states(self) -> int:
        """How many states of the channel an episode has: the blocks, the one after them, and those seen before."""
        return self.horizon + 1 + self.delay_blocks


SCENARIOS: dict[str, Fading] = {
    "walk": Fading(),
    "drive": Fading(block_s=1e-3, speed_range_m_s=(5.0, 30.0)),
    "roam": Fading(block_s=1.0, speed_range_m_s=(0.5, 15.0), horizon=50),
}


# --- processes ---------------------------------------------------------------------------------------------------
def jakes(fading: Fading, speed: Array) -> Array:
    """Correlation J0(2 pi f_D T) of a tap between two blocks (Jakes), f_D = v f_c / c the Doppler frequency [Hz]."""
    return scipy.special.j0(2.0 * np.pi * (speed * (fading.carrier_hz / LIGHT_M_S)) * fading.block_s)


def gauss_markov(first: Array, correlation: Array, innovation: Array) -> Array:
    """x_(t+1) = r x_t + sqrt(1 - r^2) w_t, (n, S, ...), from x_0 = ``first`` (n, ...) and w = ``innovation``.

    Standard normal x_0 and w keep x standard normal, correlated by r^k over k blocks. w_(S-1) is not needed.
    """
    spread = np.sqrt(1.0 - correlation * correlation)
    states = np.empty(innovation.shape)
    states[:, 0] = first
    for t in range(innovation.shape[1] - 1):
        states[:, t + 1] = correlation * states[:, t] + spread * innovation[:, t]
    return states


def walk(x: Array, y: Array, heading: Array, step_m: Array, turn: Array, low_m: float, high_m: float) -> Array:
    """Places of users that go on by ``step_m`` (n, U) a block and turn by ``turn`` (n, S, U) [rad]: (2, n, S, U).

    x, y, heading (n, U): at first. At the rings of radius ``low_m`` and ``high_m`` a user is reflected as light is,
    which with headings in all directions keeps users uniform over the area between them.
    """
    places = np.empty((2, *turn.shape))
    vx, vy = np.cos(heading), np.sin(heading)
    for t in range(turn.shape[1]):
        places[0, :, t], places[1, :, t] = x, y
        x, y = x + step_m * vx, y + step_m * vy
        radius = np.maximum(np.hypot(x, y), 1e-12)
        ring = np.clip(radius, low_m, high_m)
        inside = ring + (ring - radius)
        nx, ny = x / radius, y / radius
        outward = vx * nx + vy * ny
        turned = np.where(((radius > high_m) & (outward > 0)) | ((radius < low_m) & (outward < 0)), 2.0 * outward, 0.0)
        vx, vy = vx - turned * nx, vy - turned * ny
        x, y = np.where(inside == radius, x, inside * nx), np.where(inside == radius, y, inside * ny)
        c, s = np.cos(turn[:, t]), np.sin(turn[:, t])
        vx, vy = c * vx - s * vy, s * vx + c * vy
    return places


# --- episodes ----------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Episode:
    """The channels of n episodes, in T + 1 blocks: the last one is seen, not decided on."""

    start: Any
    """Instance of n rows: what does not change, and the first state of what does."""
    truth: Mapping[str, Array]
    """Fields of the instance that change -> (n, T + 1, ...) their true values."""
    belief: Mapping[str, Array]
    """The same fields as the agent sees them: ``delay_blocks`` old, with estimation error."""
    fade: Array
    """(n, T + 1, U) power of the fading as the agent sees it, relative to its mean."""
    correlation: Array
    """(n, U) of the powers of the fading, as it is and as the agent sees it."""

    def __len__(self) -> int:
        return int(self.fade.shape[0])

    @property
    def horizon(self) -> int:
        """T."""
        return int(self.fade.shape[1]) - 1

    def map(self, function: Callable[[Array], Array]) -> Episode:
        """The episodes with ``function`` applied to every array."""
        truth, belief = ({k: function(x) for k, x in part.items()} for part in (self.truth, self.belief))
        return Episode(self.start.map(function), truth, belief, function(self.fade), function(self.correlation))

    def __getitem__(self, rows: Any) -> Episode:
        """The episodes at ``rows``: a slice, an integer array or a mask; an integer keeps the first axis."""
        if isinstance(rows, (int, np.integer)):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"episode {rows} of {len(self)}")
            rows = slice(rows, rows + 1 or None)
        return self.map(lambda x: x[rows])

    def replaced(self, rows: Array, part: Episode) -> Episode:
        """A copy with the episodes at ``rows`` (an index array) replaced by those of ``part``."""
        merged = self.map(copied)
        pairs = [(merged.fade, part.fade), (merged.correlation, part.correlation)]
        pairs += [(getattr(merged.start, f.name), getattr(part.start, f.name)) for f in dataclasses.fields(part.start)]
        for old, new in ((merged.truth, part.truth), (merged.belief, part.belief)):
            pairs += [(old[name], new[name]) for name in new]
        for old_field, new_field in pairs:
            old_field[rows] = new_field
        return merged

    def instance(self, t: Array, *, true: bool) -> Any:
        """The instances of blocks ``t`` (n,), as they are or as the agent sees them."""
        fields = self.truth if true else self.belief
        return dataclasses.replace(self.start, **{name: at(x, t) for name, x in fields.items()})

    def blocks(self, *, true: bool) -> Any:
        """The instances of all T blocks, episode by episode: n T rows."""
        rows = np.repeat(np.arange(len(self)), self.horizon)
        return self[rows].instance(np.tile(np.arange(self.horizon), len(self)), true=true)


def at(x: Array, t: Array) -> Array:
    """Row i at block ``t[i]`` of ``x`` (n, T + 1, ...); a view where all blocks are the same."""
    return x[:, int(t[0])] if bool((t == t[0]).all()) else x[np.arange(len(t)), t]


class Cell:
    """The channel of problems whose instances have ``distance_m``, ``angle_rad`` and a power ``gain`` per user.

    gain = path loss x shadowing x fading. Users go on from where the instance puts them, path loss follows their
    distance, shadowing is Gauss-Markov in the path they walk (Gudmundson), the fading is the mean power of L complex
    taps, each Gauss-Markov in time with Jakes's correlation. A block's gain is one instance's, times the fading.
    """

    fields = ("distance_m", "angle_rad", "gain")

    def __init__(self, extra_loss_db: Callable[[Any], float] = lambda params: 0.0) -> None:
        """extra_loss_db: what a problem's gain has besides path loss and shadowing."""
        self.extra_loss_db = extra_loss_db

    def check(self, params: Any, fading: Fading) -> None:
        """Raise ValueError where a user could cross the whole cell in a block."""
        step, width = fading.speed_range_m_s[1] * fading.block_s, params.cell_radius_m - params.min_distance_m
        if step > width:
            raise ValueError(f"speed_range_m_s[1] x block_s is {step:g} m, more than the {width:g} m between the rings")

    def uniforms(self, params: Any, fading: Fading) -> int:
        """How many uniform variates one episode takes after those of its start."""
        first, each = self._counts(fading)
        return int(params.num_users) * (first + fading.states * each)

    def _counts(self, fading: Fading) -> tuple[int, int]:
        """Per user: speed, heading and taps at first; turn, shadowing, innovation and error of each state."""
        return 2 + 2 * fading.diversity, 2 + 4 * fading.diversity

    def episode(self, params: Any, fading: Fading, start: Any, uniform: Array) -> Episode:
        """Episodes from their starts (n rows, NumPy) and uniform variates (n, ``uniforms``)."""
        n, users = start.gain.shape
        first, each = self._counts(fading)
        parts = 2 * fading.diversity
        begin = uniform[:, : users * first].reshape(n, users, first)
        rest = uniform[:, users * first :].reshape(n, fading.states, users, each)
        low, high = fading.speed_range_m_s
        speed = low + (high - low) * begin[..., 0]
        place = self._walk(params, fading, start, speed, 2.0 * np.pi * begin[..., 1], rest[..., 0])
        slow = self._slow_gain(params, fading, start, speed, np.hypot(*place), rest[..., 1])
        r = jakes(fading, speed)
        taps = gauss_markov(channel.normal(begin[..., 2:]), r[..., None], channel.normal(rest[..., 2 : 2 + parts]))
        good, bad = np.sqrt(1.0 - fading.error_share), np.sqrt(fading.error_share)
        seen = good * taps + bad * channel.normal(rest[..., 2 + parts :])
        age, last = fading.delay_blocks, fading.horizon + 1
        distance, angle = np.hypot(*place), np.arctan2(place[1], place[0]) % (2.0 * np.pi)
        fade = _power(seen)[:, :last]
        return Episode(
            start=start,
            truth={
                "distance_m": distance[:, age:],
                "angle_rad": angle[:, age:],
                "gain": (slow * _power(taps))[:, age:],
            },
            belief={"distance_m": distance[:, :last], "angle_rad": angle[:, :last], "gain": slow[:, :last] * fade},
            fade=fade,
            correlation=(1.0 - fading.error_share) * r ** (2 * age),
        )

    def _walk(self, params: Any, fading: Fading, start: Any, speed: Array, heading: Array, turn: Array) -> Array:
        x, y = start.distance_m * np.cos(start.angle_rad), start.distance_m * np.sin(start.angle_rad)
        step = speed * fading.block_s
        turns = channel.normal(turn) * np.sqrt(step / fading.turn_m)[:, None]
        return walk(x, y, heading, step, turns, params.min_distance_m, params.cell_radius_m)

    def _slow_gain(
        self, params: Any, fading: Fading, start: Any, speed: Array, distance: Array, variate: Array
    ) -> Array:
        """(n, S, U) the gain that path loss and shadowing leave."""
        extra = self.extra_loss_db(params)
        loss = channel.path_loss_db(distance)
        first = 10.0 * np.log10(start.gain) + channel.path_loss_db(start.distance_m) + extra
        kept = np.exp(-speed * fading.block_s / fading.decorrelation_m)
        shadow = gauss_markov(first, kept, params.shadowing_db * channel.normal(variate))
        return channel.db_to_linear(shadow - loss - extra)

    def predicted(self, instance: Any, fade: Array, correlation: Array) -> Any:
        """The instance at the mean of its gain, given what is seen: slow gain x (1 + c (fade - 1))."""
        mean = 1.0 + correlation * (fade - 1.0)
        return dataclasses.replace(instance, gain=instance.gain / fade * mean)

    def scaled(self, instance: Any, factor: float) -> Any:
        """The instance with all power gains times ``factor``."""
        return dataclasses.replace(instance, gain=factor * instance.gain)


def _power(taps: Array) -> Array:
    """Mean power of complex taps, real and imaginary parts (variance 1 each) on the last axis; 1 in the mean."""
    return np.maximum(np.mean(taps * taps, axis=-1), LEAST_FADE)
