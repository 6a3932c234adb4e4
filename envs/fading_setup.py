"""What the scalar and the vector shell of the ``Fading`` ids share: blocks, decisions on what the agent sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from semcom_gym.envs import problems, spending, validate
from semcom_gym.envs.arrays import Array, at_least, at_most, copied, namespace, to_numpy
from semcom_gym.envs.core import OBSERVATION_LIMIT, Setup
from semcom_gym.envs.fading import SCENARIOS, Cell, Episode, Fading, at
from semcom_gym.envs.outcome import Outcome, require_feasible
from semcom_gym.envs.vector import CHUNK

SPLIT_KEY = 1  # apart from the stream of one-decision instances


class FadingSetup(Setup):
    """n episodes that run side by side.

    instance: what the agent believes of the current blocks; true_instance: what their decisions are scored on;
    predicted_instance(): the mean of what is true given what is seen, on which actions are decoded. met, outcome: the
    true instances of the last decisions, and what these achieved.
    """

    channel: ClassVar[Any] = Cell()
    energy: ClassVar[spending.Energy | None] = None
    changed: ClassVar[dict[str, Any]] = {}  # fields of Fading that the id has otherwise than its scenario
    further: ClassVar[tuple[str, ...]] = ()  # keywords of the id beside them
    completes: bool = False  # whether the last block ends what the episode is for, or cuts it
    instance: Any
    true_instance: Any = None
    _expected: Any = None
    met: Any = None
    outcome: Outcome | None = None
    episode: Episode | None = None
    fading: Fading
    _place_field: Callable[[Array], Array]
    _place_array: Callable[[Array], Array]

    # --- parameters and spaces ---
    def _set_up(self, preset: str, penalty: float, overrides: dict[str, Any]) -> None:
        self._made_with = {"preset": preset, "penalty": penalty, **overrides}
        own = dict(overrides)
        scenario = own.pop("scenario", "walk")
        validate.choice("scenario", scenario, SCENARIOS)
        names = [field.name for field in dataclasses.fields(Fading)]
        fields = [field.name for field in dataclasses.fields(problems.problem(self.problem_name).Params)]
        valid = [*fields, *names, "scenario", *self.further]
        validate.keywords(f"{self.problem_name} parameters or fading", own, valid)
        self._further = {name: own.pop(name) for name in self.further if name in own}
        given = {name: own.pop(name) for name in names if name in own}
        super()._set_up(preset, penalty, own)
        self.fading = dataclasses.replace(SCENARIOS[scenario], **(self.changed | given))
        self.channel.check(self.params, self.fading)
        self._check_energy()
        plain, users = self.observation_layout, ("fade", "correlation")
        cell = ("time_left", "energy_left", "pace") if self._has_budget else ("time_left",)
        self.observation_layout = dataclasses.replace(
            plain, user_features=(*plain.user_features, *users), global_features=(*plain.global_features, *cell)
        )
        if self._has_budget:
            self.action_layout = dataclasses.replace(self.action_layout, blocks=(*self.action_layout.blocks, "spend"))

    @property
    def _has_budget(self) -> bool:
        return self.fading.energy_share is not None

    def _check_energy(self) -> None:
        if self._has_budget and self.energy is None:
            raise ValueError(f"energy_share must be None: {self.problem.name} has no energy to spend over an episode")
        if self.energy is not None and self.fading.energy_share is not None:
            floor = self.energy.floor_w(self.params) / self.energy.least_w(self.params)
            validate.not_above("the users' least power, as a share,", floor, "energy_share", self.fading.energy_share)

    # --- episodes ---
    def episodes(self, split: str, n: int = 100) -> Episode:
        """The first ``n`` episodes of the fixed train, validation or test stream, for ``options={"episode": ...}``."""
        validate.choice("split", split, problems.SPLITS)
        validate.integer("n", n)
        seed = np.random.SeedSequence(problems.SPLIT_ENTROPY, spawn_key=(problems.SPLITS.index(split), SPLIT_KEY))
        return self._build(np.random.default_rng(seed).random((n, self._uniforms())))

    def _uniforms(self) -> int:
        """How many uniform variates one episode is made from."""
        first = self.problem.uniforms_per_instance(self.params)
        return first + int(self.channel.uniforms(self.params, self.fading))

    def _build(self, uniform: Array, start: Any = None) -> Episode:
        """Episodes (NumPy) from uniform variates (n, ``_uniforms()``), from pinned instances if there are any."""
        first = self.problem.uniforms_per_instance(self.params)
        if start is None:
            start = self.problem.build(self.params, uniform[:, :first])
        found: Episode = self.channel.episode(self.params, self.fading, start, uniform[:, first:])
        return found

    def _pinned(self, options: dict[str, Any] | None, n: int) -> Any:
        """The episodes or the first instances that the options ask for, or None."""
        options = dict(options or {})
        episode = options.pop("episode", None)
        instance = super()._pinned(options, n)
        if episode is None:
            return instance
        if instance is not None:
            raise ValueError("options hold an episode and an instance: pin one of them")
        if not isinstance(episode, Episode):
            raise TypeError(f"options['episode'] must be an Episode, got {type(episode).__name__}")
        if len(episode) != n or episode.horizon != self.fading.horizon:
            raise ValueError(
                f"options['episode'] must hold {n} episode(s) of {self.fading.horizon} blocks, got {len(episode)} of "
                f"{episode.horizon}"
            )
        self.problem.check(self.params, episode.start)
        return episode

    def _begin(self, rows: np.ndarray[Any, Any] | None, episode: Episode) -> Array:
        """Start the episodes of ``rows`` (None: all); the observations of all."""
        seen = self._place_array(self._rows_seen(episode))
        full = self._budget(episode.start)
        episode = episode.map(self._place_field)
        if rows is None or self.episode is None:
            self.episode, self._rows, self._t = episode, seen, np.zeros(len(episode), np.int64)
            self._left = self._place_field(full)
        else:
            self.episode = self.episode.replaced(rows, episode)
            keep = np.ones(len(self._t), bool)
            keep[rows] = False
            self._rows = _merged(self._rows, rows, seen)
            self._t = np.where(keep, self._t, 0)
            self._left = _merged(self._left, rows, self._place_field(full))
        return self._look()

    def _budget(self, start: Any) -> np.ndarray[Any, Any]:
        """(n,) energy of an episode, in blocks of full power."""
        return np.full(len(start), self.fading.horizon * (self.fading.energy_share or 1.0))

    def _rows_seen(self, episode: Episode) -> np.ndarray[Any, Any]:
        """(n, T + 1, d) float32: what is seen of the channel in every block, without what is left."""
        n, blocks = len(episode), episode.horizon + 1
        features = len(self.observation_layout.user_features)
        plain = self.problem.observation_layout(self.params)
        users = plain.users * len(plain.user_features)
        out = np.empty((n, blocks, plain.size + plain.users * (features - len(plain.user_features))), np.float32)
        size = max(1, CHUNK // (blocks * plain.size))
        for low in range(0, n, size):
            part = episode[low : low + size]
            t = np.tile(np.arange(blocks), len(part))
            flat = part[np.repeat(np.arange(len(part)), blocks)].instance(t, true=False)
            base = np.asarray(self.problem.observe(self.params, flat)).reshape(len(part), blocks, -1)
            shape = (len(part), blocks, plain.users)
            own = [10.0 * np.log10(part.fade) / 10.0, np.broadcast_to(part.correlation[:, None], shape)]
            rows = np.concatenate([base[..., :users].reshape(*shape, -1), np.stack(own, -1)], axis=-1)
            seen = np.concatenate([rows.reshape(len(part), blocks, -1), base[..., users:]], axis=-1)
            out[low : low + size] = np.clip(seen, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)
        return out

    # --- a block ---
    def _look(self) -> Array:
        """Make the current blocks' instances; the observations (n, d), float32."""
        assert self.episode is not None
        self.instance = self.episode.instance(self._t, true=False)
        self.true_instance = self.episode.instance(self._t, true=True)
        self._expected = self.channel.predicted(self.instance, at(self.episode.fade, self._t), self.episode.correlation)
        rows = at(self._rows, self._t)
        xp = namespace(rows)
        blocks_left = self._blocks_left()
        cell = [blocks_left / self.fading.horizon]
        if self._has_budget:
            cell += [self._left / self._budget_blocks, self.spending_limits()[1]]
        parts = [xp.astype(x, rows.dtype) for x in cell]
        return xp.concat([rows, xp.stack(parts, axis=-1)], axis=-1)

    @property
    def blocks_done(self) -> np.ndarray[Any, Any]:
        """(n,) how many blocks of the current episodes are decided."""
        return self._t

    @property
    def _budget_blocks(self) -> float:
        return self.fading.horizon * (self.fading.energy_share or 1.0)

    def _blocks_left(self) -> Array:
        return self._place_field((self.fading.horizon - self._t).astype(float))

    def spending_limits(self) -> tuple[Array, Array, Array]:
        """Floor, even pace and cap (n,) of the current blocks' power, as shares of full power.

        Raises ValueError where there is no energy budget.
        """
        if self.energy is None or not self._has_budget:
            raise ValueError("this environment has no energy budget over an episode")
        full = getattr(self.instance, self.energy.budget)
        floor = at_most(at_least(self.energy.floor_w(self.params) / full, spending.LEAST_SHARE), 1.0)
        left = at_least(self._blocks_left(), 1.0)
        return floor, *spending.spending_limits(self._left, left, floor)

    def predicted_instance(self) -> Any:
        """The current instances at the mean of their channel power, given what is seen (MMSE)."""
        return self._expected

    def with_power(self, instance: Any, share: Array) -> Any:
        """Instances whose power budget is ``share`` (n,) of what it is."""
        assert self.energy is not None
        name = self.energy.budget
        return dataclasses.replace(instance, **{name: getattr(instance, name) * share})

    def _decide(self, action: Array) -> Any:
        """The allocation that actions (n, d) stand for, made on the prediction."""
        limits = self.spending_limits() if self._has_budget else None
        return self._decode(self._expected, limits, action)

    def _decode(self, instance: Any, limits: tuple[Array, Array, Array] | None, action: Array) -> Any:
        """The allocation of actions (n, d), with the floor, pace and cap of the power if there is a budget."""
        if limits is None:
            return self.problem.decode(self.params, instance, action)
        users = self.params.num_users
        entry = at_most(at_least(action[:, -users:], -1.0), 1.0).mean(-1)
        power = spending.spend(entry, *limits)
        return self.problem.decode(self.params, self.with_power(instance, power), action[:, :-users])

    def _settle(self, allocation: Any) -> tuple[Outcome, Array]:
        """Score the decisions of a block on the true channel, and go on to the next."""
        outcome = self.problem.evaluate_unchecked(self.params, self.true_instance, allocation)
        if self._has_budget:
            outcome = self._charge(outcome, allocation)
        self.met, self.outcome = self.true_instance, outcome
        self._t = self._t + 1
        return outcome, self.problem.reward(outcome, self.penalty)

    def _check_allocation(self, allocation: Any) -> None:
        """Raise unless ``allocation`` is one of the problem's, a row for each environment."""
        self.problem.evaluate(self.params, self.true_instance.map(to_numpy), allocation)

    def _charge(self, outcome: Outcome, allocation: Any) -> Outcome:
        """Take the energy of a block; what goes beyond the episode's is a violation, relative to it."""
        assert self.energy is not None
        used = self.energy.used(self.params, allocation) / getattr(self.true_instance, self.energy.budget)
        before, self._left = self._left, self._left - used
        excess = (at_least(-self._left, 0.0) - at_least(-before, 0.0)) / self._budget_blocks
        left = at_least(self._left, 0.0) / self._budget_blocks
        return dataclasses.replace(
            outcome, violation=outcome.violation | {"energy": excess}, terms=outcome.terms | {"energy_left": left}
        )

    def encode(self, allocation: Any) -> Array:
        """The float64 action that stands for an allocation of the current blocks, made on the prediction.

        Shape (size,) for the scalar environment, (num_envs, size) for a vector one. Raises ValueError for an
        allocation that breaks a constraint of the predicted instance, or spends energy that is not there.
        """
        instance = self._expected.map(to_numpy)
        if self._has_budget:
            action = self._encode_spending(instance, allocation)
        else:
            action = self.problem.encode(self.params, instance, allocation)
        return action[0] if isinstance(self, gym.Env) else action

    def _encode_spending(self, instance: Any, allocation: Any) -> Array:
        assert self.energy is not None
        floor, pace, cap = (to_numpy(x).astype(float) for x in self.spending_limits())
        share = self.energy.used(self.params, allocation) / getattr(instance, self.energy.budget)
        require_feasible({"energy": share / cap - 1.0})
        share = np.clip(share, floor, cap)
        action = self.problem.encode(self.params, self.with_power(instance, share), allocation)
        entry = spending.spend_entry(share, floor, pace, cap)
        return np.concat([action, np.repeat(entry[:, None], self.params.num_users, axis=1)], axis=1)


def _merged(old: Array, rows: np.ndarray[Any, Any], new: Array) -> Array:
    """A copy of ``old`` with ``new`` in some rows."""
    copy = copied(old)
    copy[rows] = new
    return copy
