"""Where the tests of the training paper's algorithm start."""

from __future__ import annotations

from typing import Any

import numpy as np

from semcom_gym import envs
from semcom_gym.baselines.training import p3, p4, paper
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.physics import Allocation

TRAINING = envs.problem("training")


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = TRAINING.preset(preset, **overrides)
    return params, TRAINING.sample_split(params, "validation", n)


def shares(params: Any, instance: Any, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Average powers and bandwidths, or random ones that use the bandwidth up."""
    if seed is None:
        return paper._even(params, instance, 0.5)
    rng = np.random.default_rng(seed)
    power = params.max_power_w * rng.uniform(0.1, 1.0, instance.gain.shape)
    return power, params.total_bandwidth_hz * rng.dirichlet(np.full(params.num_users, 4.0), len(instance))


def started(preset: str, n: int, seed: int | None = None, **overrides: Any) -> tuple[Any, Any, Allocation]:
    """Instances where P3 has a solution at the start, and that solution."""
    params, instance = batch(preset, n, **overrides)
    first = p3.allocate(params, instance, *shares(params, instance, seed))
    good = np.flatnonzero([not why for why in physics.diagnose(params, instance, first)])
    assert len(good) >= n // 4
    return params, instance[good], first[good]


def p4_of(params: Any, instance: Any, now: Allocation) -> p4.Upload:
    terms = physics.evaluate(params, instance, now).terms
    min_snr = physics.needed_snr(params, instance.min_psnr_db, now.ratio)
    return p4.upload(params, instance, now.ratio, terms["upload_time_s"], min_snr)


def energy(task: p4.Upload, power: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """(n, N) upload energy [J], written out."""
    return power * task.load / (bandwidth * np.log(1.0 + power / (task.noise * bandwidth)))
