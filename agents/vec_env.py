"""SB3's vector environment around the batched environments: one array step for all, no Python loop over physics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from semcom_gym.envs import default_preset
from semcom_gym.envs.arrays import Array, Batch, frozen, is_torch, namespace, to_numpy

PER_USER = "terms"  # the entry of a step's info that holds arrays per user


class SB3VecEnv(VecEnv):
    """A semcom-gym vector environment (``gym.make_vec``) as SB3 expects one.

    venv: the wrapped environment, on NumPy or torch; APG differentiates its step. Observations (n, d), rewards (n,)
    and dones (n,) are NumPy arrays in either case. The info of environment i holds ``objective``, ``feasible``,
    ``cost`` and ``violation/<name>`` as Python numbers, ``terminal_observation`` (a view of the batch),
    ``TimeLimit.truncated`` and ``episode`` (return r, length l, seconds t, as Monitor writes) at the end of an episode,
    and nothing before it. The arrays of the episodes that ended last, with the per-user ``terms``, stay in
    ``final_info``.
    """

    def __init__(self, venv: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        self.venv = venv
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)
        self.final_info: dict[str, Any] = {}
        self._batch_options: dict[str, Any] | None = None
        self._actions: Any = None
        self._start = time.time()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Environment i gets ``seed + i`` at the next reset; None leaves the streams as they are."""
        self._seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        return self._seeds

    def set_options(self, options: Any = None) -> None:
        """Options of the next reset, one dict for all: ``instance`` pins a batch of num_envs instances."""
        if options is not None and not isinstance(options, dict):
            raise TypeError(f"options must be one dict for all environments, got {type(options).__name__}")
        self._batch_options = options

    def reset(self) -> np.ndarray[Any, Any]:
        """Start an episode everywhere; the observations (n, d)."""
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observation, _ = self.venv.reset(seed=seeds, options=self._batch_options)
        self._reset_seeds()
        self._batch_options = None
        self._lengths = np.zeros(self.num_envs, int)
        self._fresh = np.ones(self.num_envs, bool)
        return to_numpy(observation)

    def step_async(self, actions: Any) -> None:
        """Keep the actions (n, d) for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Observations, rewards, dones and a list of infos of the step begun by ``step_async``."""
        observation, reward, done = self.step_batch(self._actions)
        return to_numpy(observation), to_numpy(reward), to_numpy(done), self._infos()

    def step_batch(self, actions: Any) -> tuple[Array, Array, Array]:
        """Observations (n, d), rewards (n,), dones (n,) as arrays of the backend; torch rewards keep their gradient."""
        observation, reward, terminated, truncated, info = self.venv.step(actions)
        done = terminated | truncated
        self._done, self._cut = to_numpy(done), to_numpy(truncated & ~terminated)
        if self._done.any():
            self.final_info = _ended(info["final_info"], self._done)
            self._last_observation = info["final_obs"]
        gained = namespace(reward).astype(frozen(reward), namespace(reward).float64)
        before = 0.0 if self._fresh.all() else namespace(reward).where(self._ended, 0.0, self._returns)
        self._returns, self._ended = gained + before, done  # rewards stay on the device until an episode is reported
        self._lengths = np.where(self._fresh, 0, self._lengths) + 1
        self._fresh = self._done
        return observation, reward, done

    def compare(self, actions: Array) -> Array:
        """(k, num_envs) what each of k batches of actions (k, num_envs, d) would earn now; nothing changes."""
        return self.venv.unwrapped.compare(actions)

    def finished_episodes(self, most: int | None = None) -> list[dict[str, float]]:
        """Return r, length l and time t [s] of the episodes that ended in the last step, at most ``most`` of them."""
        seconds = round(time.time() - self._start, 6)
        which: Any = slice(most) if self._done.all() else np.flatnonzero(self._done)[:most]
        pairs = zip(self._returns[which].tolist(), self._lengths[which].tolist(), strict=True)
        return [{"r": r, "l": length, "t": seconds} for r, length in pairs]

    def _infos(self) -> list[dict[str, Any]]:
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if not self._done.any():
            return infos
        scalars = {name: to_numpy(x).tolist() for name, x in self.final_info.items() if name != PER_USER}
        rows = zip(*scalars.values(), strict=True)
        last, cut = to_numpy(self._last_observation), self._cut.tolist()
        for i, row, episode in zip(np.flatnonzero(self._done).tolist(), rows, self.finished_episodes(), strict=True):
            infos[i] = dict(zip(scalars, row, strict=True))
            infos[i]["terminal_observation"] = last[i]
            infos[i]["TimeLimit.truncated"] = cut[i]
            infos[i]["episode"] = episode
        return infos

    def close(self) -> None:
        """Close the wrapped environment."""
        self.venv.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of each environment: its row where the batch holds one per environment, else the shared one."""
        return self._rows(getattr(self.venv, attr_name), indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the batch, which is shared: ValueError for some of the environments only."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"{attr_name!r} is shared by all {self.num_envs} environments: set it without indices")
        setattr(self.venv, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the batch once and hand each environment its row of the answer."""
        return self._rows(getattr(self.venv, method_name)(*args, **kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """True for Monitor, whose episode statistics this class reports itself; False otherwise."""
        return [issubclass(wrapper_class, Monitor)] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[Any]:
        """Nothing: a batch does not render; render the scalar environment."""
        return [None] * self.num_envs

    def _rows(self, value: Any, indices: Any) -> list[Any]:
        wanted = list(self._get_indices(indices))
        batched = isinstance(value, Batch) or ((isinstance(value, np.ndarray) or is_torch(value)) and value.ndim > 0)
        if batched and len(value) == self.num_envs:
            return [value[i] for i in wanted]
        return [value] * len(wanted)


def _ended(final_info: dict[str, Any], done: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The rows of the environments whose episode ended."""
    if done.all():
        return final_info
    terms = {name: value[done] for name, value in final_info[PER_USER].items()}
    return {name: terms if name == PER_USER else value[done] for name, value in final_info.items()}


def make_vec_env(
    env_id: str,
    num_envs: int = 256,
    *,
    seed: int | None = None,
    preset: str | None = None,
    backend: str = "numpy",
    device: str = "cpu",
    **overrides: Any,
) -> SB3VecEnv:
    """The SB3 vector environment of an id.

    preset: the id's own default if None. overrides: any other keyword of the environment or field of its Params.
    Raises ValueError or TypeError, in one line, for an unknown id, preset, backend, device or keyword.
    """
    env_id = env_id.removeprefix("semcom_gym:")
    overrides["preset"] = default_preset(env_id) if preset is None else preset
    overrides |= {"num_envs": num_envs, "backend": backend, "device": device}
    venv = gym.make_vec(env_id, vectorization_mode="vector_entry_point", **overrides)
    vec_env = SB3VecEnv(venv)
    vec_env.seed(seed)
    return vec_env
