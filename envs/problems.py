"""A problem: one paper's parameters, instances and objective behind the names that other code relies on."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, Batch
from semcom_gym.envs.outcome import Outcome

NAMES = ("crra",)
SPLITS = ("train", "validation", "test")
SPLIT_ENTROPY = 0x5E3C03  # fixed for good: it decides the instances of every split


@dataclasses.dataclass(frozen=True)
class ObservationLayout:
    """How a flat observation folds back: ``users`` rows of ``user_features``, then ``global_features`` once."""

    users: int
    user_features: tuple[str, ...]
    global_features: tuple[str, ...]

    @property
    def size(self) -> int:
        """Length of the flat observation."""
        return self.users * len(self.user_features) + len(self.global_features)


@dataclasses.dataclass(frozen=True)
class ActionLayout:
    """How a flat action folds back: one block after the other, each with an entry per user."""

    users: int
    blocks: tuple[str, ...]

    @property
    def size(self) -> int:
        """Length of the flat action."""
        return self.users * len(self.blocks)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One paper's problem. ``params`` below is always an instance of ``Params``.

    maximise: whether more of the objective is better. objective: what it is, in words.
    build: instances from uniform variates (n, ``uniforms_per_instance(params)``).
    check_instance: raises ValueError for values that its shapes and signs alone do not show to be wrong.
    evaluate_unchecked, decode, observe: pure functions of NumPy arrays or torch tensors; encode: NumPy only.
    """

    name: str
    paper: str
    maximise: bool
    objective: str
    Params: type[Any]
    PRESETS: Mapping[str, Any]
    Instance: type[Batch]
    Allocation: type[Batch]
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
        validate.choice("split", split, SPLITS)
        seed = np.random.SeedSequence(SPLIT_ENTROPY, spawn_key=(SPLITS.index(split),))
        return self.sample(params, np.random.default_rng(seed), n)

    def evaluate(self, params: Any, instance: Any, allocation: Any) -> Outcome:
        """Objective, violations and terms of a batch of allocations, after checking shapes, signs and finiteness."""
        self.check(params, instance)
        if not isinstance(allocation, self.Allocation):
            raise TypeError(f"allocation must be a {self.name} Allocation, got {type(allocation).__name__}")
        shape = (len(instance), params.num_users)
        for field in dataclasses.fields(allocation):
            validate.array(f"allocation.{field.name}", getattr(allocation, field.name), shape, nonnegative=True)
        return self.evaluate_unchecked(params, instance, allocation)

    def reward(self, outcome: Outcome, penalty: float) -> Array:
        """(n,) the objective, signed so that more is better, minus ``penalty`` times the total relative violation."""
        sign = 1.0 if self.maximise else -1.0
        return sign * outcome.objective - penalty * outcome.cost

    def play(self, params: Any, instance: Any, action: Array, penalty: float = 1.0) -> tuple[Outcome, Array]:
        """What an action (n, d) achieves on instances of its own library, unchecked: the outcome and the reward."""
        outcome = self.evaluate_unchecked(params, instance, self.decode(params, instance, action))
        return outcome, self.reward(outcome, penalty)

    def check(self, params: Any, instance: Any) -> None:
        """Raise unless ``params`` and ``instance`` are of this problem, agree in size and hold valid numbers."""
        self._check_params(params)
        if not isinstance(instance, self.Instance):
            raise TypeError(f"instance must be a {self.name} Instance, got {type(instance).__name__}")
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name)
            tail = tuple(value.shape[1:])
            expected = (len(instance), params.num_users) if tail else (len(instance),)
            validate.array(f"instance.{field.name}", value, expected, nonnegative=True)
        self.check_instance(params, instance)

    def observation_layout(self, params: Any) -> ObservationLayout:
        """Layout of the flat observation."""
        return ObservationLayout(params.num_users, self.user_features, self.global_features)

    def action_layout(self, params: Any) -> ActionLayout:
        """Layout of the flat action."""
        return ActionLayout(params.num_users, self.action_blocks(params))

    def _check_params(self, params: Any) -> None:
        if not isinstance(params, self.Params):
            raise TypeError(f"params must be {self.name} Params, got {type(params).__name__}")


def problem(name: str) -> Problem:
    """The problem of a paper by its short name. Raises ValueError for an unknown name."""
    validate.choice("problem", name, NAMES)
    module = importlib.import_module(f"semcom_gym.envs.{name}")
    found = module.PROBLEM
    assert isinstance(found, Problem)
    return found
