"""A problem: one paper's parameters, instances and objective behind the names that other code relies on."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, Batch, to_numpy
from semcom_gym.envs.outcome import Outcome

NAMES = ("crra", "sfma", "ascc", "training")
SPLITS = ("train", "validation", "test")
SPLIT_ENTROPY = 0x5E3C03  # fixed for good: it decides the instances of every split


@dataclasses.dataclass(frozen=True)
class ObservationLayout:
    """How a flat observation folds back: a row of ``user_features`` for every user, a row of ``pair_features`` for
    every pair of users i < j in lexicographic order (none where there are no such features), then ``global_features``.
    """

    users: int
    user_features: tuple[str, ...]
    global_features: tuple[str, ...]
    pair_features: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Length of the flat observation."""
        pairs = self.users * (self.users - 1) // 2
        return self.users * len(self.user_features) + pairs * len(self.pair_features) + len(self.global_features)


@dataclasses.dataclass(frozen=True)
class ActionLayout:
    """How a flat action folds back: ``pair_blocks`` with an entry per pair, then ``blocks`` with an entry per user."""

    users: int
    blocks: tuple[str, ...]
    pair_blocks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Length of the flat action."""
        pairs = self.users * (self.users - 1) // 2
        return pairs * len(self.pair_blocks) + self.users * len(self.blocks)


def _nothing_more_to_check(params: Any, allocation: Any) -> None:
    """Of an allocation whose shapes, signs and finiteness say it all; a function, so that environments pickle."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One paper's problem. ``params`` below is always an instance of ``Params``.

    maximise: whether more of the objective is better. objective: what it is, in words.
    instance_shapes, allocation_shapes: shape of every field behind the first axis. signed: fields that may be negative.
    build: instances from uniform variates (n, ``uniforms_per_instance(params)``).
    check_instance, check_allocation: raise for values that shapes and signs alone do not show to be wrong.
    exact_actions: fields of Params under which an action stands for every feasible allocation as it is, where other
    values may turn it into a better one.
    evaluate_unchecked, decode, observe: pure functions of NumPy arrays or torch tensors; encode: NumPy only.
    outcome_of: the evaluation of the decoded action (params, instance, action), where it takes less than both in turn.
    prepare, outcome_at: what actions on instances that are met many times need of them (params, instance), where it
    saves time, and what the actions (n, d) achieve on some rows (n,) of it (params, prepared, rows, action).
    """

    name: str
    paper: str
    maximise: bool
    objective: str
    Params: type[Any]
    PRESETS: Mapping[str, Any]
    Instance: type[Batch]
    Allocation: type[Batch]
    instance_shapes: Callable[[Any], Mapping[str, tuple[int, ...]]]
    allocation_shapes: Callable[[Any], Mapping[str, tuple[int, ...]]]
    uniforms_per_instance: Callable[[Any], int]
    build: Callable[[Any, Array], Any]
    check_instance: Callable[[Any, Any], None]
    evaluate_unchecked: Callable[[Any, Any, Any], Outcome]
    decode: Callable[[Any, Any, Array], Any]
    encode: Callable[[Any, Any, Any], Array]
    observe: Callable[[Any, Any], Array]
    action_blocks: Callable[[Any], tuple[str, ...]]
    user_features: tuple[str, ...]
    global_features: tuple[str, ...]
    pair_features: tuple[str, ...] = ()
    pair_blocks: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    exact_actions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    check_allocation: Callable[[Any, Any], None] = _nothing_more_to_check
    outcome_of: Callable[[Any, Any, Array], Outcome] | None = None
    prepare: Callable[[Any, Any], Batch] | None = None
    outcome_at: Callable[[Any, Any, Array, Array], Outcome] | None = None

    def preset(self, name: str, **overrides: Any) -> Any:
        """The parameters of a preset, with fields overridden.

        Raises ValueError for an unknown preset or a bad value, TypeError for an unknown field.
        """
        validate.choice(f"{self.name} preset", name, self.PRESETS)
        fields = [field.name for field in dataclasses.fields(self.Params)]
        validate.keywords(f"{self.name} parameters", overrides, fields)
        params = self.PRESETS[name]
        return dataclasses.replace(params, **overrides) if overrides else params

    def sample(self, params: Any, rng: np.random.Generator, n: int = 1) -> Any:
        """``n`` random instances. The first rows of a longer sample from the same generator state are the same."""
        self._check_params(params)
        validate.integer("n", n)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
        return self.build(params, rng.random((n, self.uniforms_per_instance(params))))

    def sample_split(self, params: Any, split: str, n: int = 100) -> Any:
        """The first ``n`` instances of the fixed train, validation or test stream; the streams are disjoint."""
        return self.sample(params, split_stream(split), n)

    def evaluate(self, params: Any, instance: Any, allocation: Any) -> Outcome:
        """Objective, violations and terms of a batch of allocations, after checking shapes, signs and finiteness."""
        self.check(params, instance)
        if not isinstance(allocation, self.Allocation):
            raise TypeError(f"allocation must be a {self.name} Allocation, got {type(allocation).__name__}")
        for name, tail in self.allocation_shapes(params).items():
            value = getattr(allocation, name)
            validate.array(f"allocation.{name}", value, (len(instance), *tail), nonnegative=name not in self.signed)
        self.check_allocation(params, allocation.map(to_numpy))
        return self.evaluate_unchecked(params, instance, allocation)

    def reward(self, outcome: Outcome, penalty: float) -> Array:
        """(n,) the objective, signed so that more is better, minus ``penalty`` times the total relative violation."""
        sign = 1.0 if self.maximise else -1.0
        return sign * outcome.objective - penalty * outcome.cost

    def play(self, params: Any, instance: Any, action: Array, penalty: float = 1.0) -> tuple[Outcome, Array]:
        """What an action (n, d) achieves on instances of its own library, unchecked: the outcome and the reward."""
        if self.outcome_of is None:
            outcome = self.evaluate_unchecked(params, instance, self.decode(params, instance, action))
        else:
            outcome = self.outcome_of(params, instance, action)
        return outcome, self.reward(outcome, penalty)

    def check(self, params: Any, instance: Any) -> None:
        """Raise unless ``params`` and ``instance`` are of this problem, agree in size and hold valid numbers."""
        self._check_params(params)
        if not isinstance(instance, self.Instance):
            raise TypeError(f"instance must be a {self.name} Instance, got {type(instance).__name__}")
        for name, tail in self.instance_shapes(params).items():
            value = getattr(instance, name)
            validate.array(f"instance.{name}", value, (len(instance), *tail), nonnegative=name not in self.signed)
        self.check_instance(params, instance.map(to_numpy))

    def observation_layout(self, params: Any) -> ObservationLayout:
        """Layout of the flat observation."""
        return ObservationLayout(params.num_users, self.user_features, self.global_features, self.pair_features)

    def action_layout(self, params: Any) -> ActionLayout:
        """Layout of the flat action."""
        return ActionLayout(params.num_users, self.action_blocks(params), self.pair_blocks)

    def _check_params(self, params: Any) -> None:
        if not isinstance(params, self.Params):
            raise TypeError(f"params must be {self.name} Params, got {type(params).__name__}")


def split_stream(split: str) -> np.random.Generator:
    """The generator that the instances of a split come from. Raises ValueError for an unknown split."""
    validate.choice("split", split, SPLITS)
    return np.random.default_rng(np.random.SeedSequence(SPLIT_ENTROPY, spawn_key=(SPLITS.index(split),)))


def problem(name: str) -> Problem:
    """The problem of a paper by its short name. Raises ValueError for an unknown name."""
    validate.choice("problem", name, NAMES)
    module = importlib.import_module(f"semcom_gym.envs.{name}")
    found = module.PROBLEM
    assert isinstance(found, Problem)
    return found
