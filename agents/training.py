"""Train an agent: one call, one folder, resumable after a kill, the best model by the validation split kept.

The folder of a run holds ``model.zip`` (best model so far), ``run.json`` (what made it, and its validation curve),
``checkpoint.zip`` (what is needed to go on; gone once the run is finished) and the TensorBoard log.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import math
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from tqdm import tqdm

from semcom_gym.agents import hyperparams as hp
from semcom_gym.agents import varied
from semcom_gym.agents.callbacks import (
    Reference,
    TrainingLog,
    Validation,
    is_finite,
    log_hyperparameters,
    log_validation,
)
from semcom_gym.agents.fading import FadingValidation, judge
from semcom_gym.agents.imitation import BC
from semcom_gym.agents.policies import space_kwargs
from semcom_gym.agents.records import IDENTITY, name_of_run, open_record
from semcom_gym.agents.store import to_bytes, to_json, write
from semcom_gym.agents.vec_env import SB3VecEnv, make_vec_env
from semcom_gym.envs import default_preset, validate
from semcom_gym.envs.arrays import usable_device

KEPT = ("reward", "objective", "feasible", "score", "gap", *varied.TO_SOLVER)  # of each validation, in run.json
LOG_EVERY = 10  # rollouts
PICTURE_EVERY = 5  # validations
WITH_MEMORY = (OffPolicyAlgorithm, BC)  # what they have collected is a part of a checkpoint


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run: the best model by validation reward, the folder and the content of ``run.json``."""

    model: BaseAlgorithm
    folder: Path
    record: dict[str, Any]


def train(
    env_id: str,
    algo: str = "apg",
    *,
    preset: str | None = None,
    timesteps: int | None = None,
    num_envs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    tensorboard: str | Path | None = None,
    resume: bool = False,
    hyperparams: dict[str, Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    evaluations: int = 20,
    validation: int = 100,
    scored: int = 20,
    reference: Reference | None = None,
    stop: Callable[[dict[str, Any]], bool] | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Run:
    """Train ``algo`` (apg, bc, dagger, ppo, a2c, sac, tqc, td3, maskable_ppo, recurrent_ppo) on an environment.

    timesteps: decisions to train on; num_envs: environments at once; those of ``agents/hyperparams`` if None.
    hyperparams: entries that replace those of the file. overrides: fields of Params.
    vary: fields of Params and the values to draw them from, for an agent of many problems (``apg``, ids of one
    decision): training goes round all combinations, and so does validation, with ``validation`` instances shared out
    and scored by the solver ``fast``, see ``agents/varied.py``; hyper-parameters as in ``hyperparams/apg_varied.yml``.
    out: folder of the run, ``runs/<id>_<preset>_<algo>[_varied]_seed<seed>`` if None. tensorboard: folder for the log,
    ``<out>/tensorboard`` if None. resume: go on where the run in ``out`` stopped; start where there is none.
    evaluations: how often to validate, keep the best model and write a checkpoint, at equal distances.
    validation: instances of the validation split, or episodes of a fading id. scored: how many of them (of their
    blocks, in whole episodes) get a certified score in the log (each costs one proof at the start); reference: of the
    first instances, in place of these proofs. stop: is handed the record after each validation and ends the run where
    it says True. The test split is never touched.

    The record says why a run ``ended``: its timesteps are done, the hyper-parameter ``patience`` (validations without
    a better reward than the best) is used up, or ``stop`` stopped it. Raises FloatingPointError if it diverges.

    Ctrl-C returns the run so far. It or a killed run goes on from the last checkpoint and ends with the weights that
    it would have had. Raises ValueError or TypeError, in one line, for a bad id, algorithm, preset, device or value.
    """
    for name, value, low in (("evaluations", evaluations, 1), ("validation", validation, 1), ("scored", scored, 0)):
        validate.integer(name, value, low=low)
    validate.integer("seed", seed, low=0)
    env_id = env_id.removeprefix("semcom_gym:")
    preset = default_preset(env_id) if preset is None else preset
    settings = hp.load(env_id, algo, hyperparams, varied=bool(vary), n_timesteps=timesteps, n_envs=num_envs)
    if vary:
        varied.check(vary, env_id, algo, overrides)
    lists = {name: list(values) for name, values in vary.items()} if vary else None
    identity = dict(zip(IDENTITY, (env_id, preset, overrides, lists, algo, seed, settings), strict=True))
    name = name_of_run(env_id, algo, preset, seed, vary)
    folder = Path("runs", name) if out is None else Path(out)
    options = {"preset": preset, **_backend(algo, device), **overrides}
    if "penalty" in settings:
        options["penalty"] = settings["penalty"]
    env = make_vec_env(env_id, settings["n_envs"], **options)
    if lists:
        env = varied.make_varied_env(env, env_id, lists, **options)
    record = open_record(folder, identity, resume)
    if record["finished"]:
        return _finish(folder, record, env, device)
    model = _restore(folder, record, env, device) if record["curve"] else _build(env, identity, device)
    log = folder / "tensorboard" if tensorboard is None else Path(tensorboard, name)
    model.set_logger(_logger(log))
    measured = _judge(env, validation, scored, reference)
    keeper = _Keeper(folder, record, measured, evaluations, stop, progress)
    left = settings["n_timesteps"] - model.num_timesteps
    every = LOG_EVERY * (env.num_envs if isinstance(model, OffPolicyAlgorithm) else 1)  # which counts episodes
    try:
        model.learn(left, [TrainingLog(LOG_EVERY), keeper], log_interval=every, reset_num_timesteps=False)
        if not record["finished"]:
            keeper.keep("timesteps")
    except (RuntimeError, ValueError) as error:
        if is_finite(model):
            raise
        raise FloatingPointError(f"{algo} diverged after {model.num_timesteps} decisions") from error
    except KeyboardInterrupt:
        if not record["curve"]:
            raise
        print(f"stopped; resume=True goes on from step {record['timesteps']} of {settings['n_timesteps']}")
    finally:
        keeper.close()
    return _finish(folder, record, env, device)


def _judge(
    env: SB3VecEnv, validation: int, scored: int, reference: Reference | None
) -> Validation | FadingValidation | varied.VariedValidation:
    """What measures a model of ``env`` on the validation split."""
    if not isinstance(env, varied.VariedVecEnv):
        return judge(env, validation, scored, reference)
    if reference is not None:
        raise ValueError("reference is of one setting: vary takes none")
    return varied.VariedValidation(env, validation, scored > 0)


def _logger(folder: Path) -> Logger:
    """The TensorBoard log of a run. Raises ValueError, in one line, for a folder that takes no files."""
    try:
        return configure(str(folder), ["tensorboard"])
    except OSError as error:
        raise ValueError(f"cannot write the log in {str(folder)!r}: {error.strerror}") from None


def _backend(algo: str, device: str) -> dict[str, str]:
    """Where the environment computes: APG needs torch and there the device of the model, a solver needs float64."""
    usable_device(device)
    if issubclass(hp.ALGORITHMS[algo][0], BC):
        return {"dtype": "float64"}
    return {"backend": "torch", "device": device} if algo == "apg" else {}


def _build(env: SB3VecEnv, identity: dict[str, Any], device: str) -> BaseAlgorithm:
    """A new model for ``env``."""
    algorithm, policy = hp.ALGORITHMS[identity["algo"]]
    policy = hp.POLICIES.get(identity["hyperparams"]["policy"], policy)
    venv = env.venv.unwrapped
    arguments = hp.arguments(identity["hyperparams"], venv.action_layout.size)
    arguments["policy_kwargs"] = space_kwargs(venv) | arguments.get("policy_kwargs", {})
    if arguments.get("n_steps") == "episode":
        arguments["n_steps"] = venv.fading.horizon
    try:
        return algorithm(policy, env, seed=identity["seed"], device=device, **arguments)
    except TypeError as error:
        raise TypeError(f"hyper-parameters of {identity['algo']}: {str(error).rpartition(') ')[2]}") from None


def _restore(folder: Path, record: dict[str, Any], env: SB3VecEnv, device: str) -> BaseAlgorithm:
    """The model of the last checkpoint; ``record`` is brought back to the same moment."""
    try:
        with zipfile.ZipFile(folder / "checkpoint.zip") as archive:
            record.update(json.loads(archive.read("record.json")))
            model = hp.ALGORITHMS[record["algo"]][0].load(io.BytesIO(archive.read("model.zip")), env, device)
            if isinstance(model, WITH_MEMORY):
                model.load_replay_buffer(io.BytesIO(archive.read("replay_buffer.pkl")))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"the checkpoint in {str(folder)!r} is missing or corrupt: {error}") from None
    return model


def _finish(folder: Path, record: dict[str, Any], env: SB3VecEnv, device: str) -> Run:
    model = hp.ALGORITHMS[record["algo"]][0].load(folder / "model.zip", env, device)
    return Run(model, folder, record)


class _Keeper(BaseCallback):
    """Validates, keeps the best model and writes checkpoints, each at the start of a rollout.

    There, all random streams restart from the run's seed and the number of steps, so that a run which goes on from a
    checkpoint and one that was never stopped are the same.
    """

    def __init__(
        self,
        folder: Path,
        record: dict[str, Any],
        validation: Validation | FadingValidation | varied.VariedValidation,
        evaluations: int,
        stop: Callable[[dict[str, Any]], bool] | None,
        progress: bool,
    ) -> None:
        super().__init__()
        self.stop = stop
        self.folder, self.record, self.validation = folder, record, validation
        total = record["hyperparams"]["n_timesteps"]
        self.every = math.ceil(total / evaluations)
        self.due = record["timesteps"]
        self.bar = tqdm(total=total, initial=self.due, unit="step", unit_scale=True, disable=not progress)
        self.pictures = importlib.util.find_spec("matplotlib") is not None
        if not self.pictures:
            warnings.warn("no allocation figures without matplotlib: pip install 'semcom-gym[report]'", stacklevel=3)

    def _on_training_start(self) -> None:
        log_hyperparameters(self.logger, self.record["hyperparams"], ["validation/reward", "validation/score"])
        self.before = self.record["seconds"]
        self.started = time.perf_counter()

    def _on_step(self) -> bool:
        self.bar.update(min(self.num_timesteps, self.bar.total) - self.bar.n)
        return not self.record["finished"]

    def _on_rollout_start(self) -> None:
        if self.num_timesteps < self.due:
            return
        if not self.record["curve"] or self.num_timesteps > self.record["timesteps"]:
            self.keep()
            if self.record["finished"]:  # the next step ends it
                return
        self.due = (self.num_timesteps // self.every + 1) * self.every
        key = np.random.SeedSequence([self.record["seed"], self.num_timesteps])
        self.model.set_random_seed(int(key.generate_state(1)[0]))
        self.model._last_obs = self.training_env.reset()
        self.model._last_episode_starts = np.ones(self.training_env.num_envs, bool)

    def keep(self, ended: str | None = None) -> None:
        """Validate; write the model if it is the best so far, then the checkpoint and the record.

        ended: why this is the last time, if it is known to be.
        """
        result, outcome = self.validation.measure(self.model)
        count = len(self.record["curve"])
        draw = self.pictures and (ended is not None or count % PICTURE_EVERY == 0)
        log_validation(
            self.logger, result, self.validation.picture(outcome) if draw else None, self.model.num_timesteps
        )
        point = {name: result[f"validation/{name}"] for name in KEPT if f"validation/{name}" in result}
        self.bar.set_postfix({name: f"{point[name]:.4g}" for name in ("reward", "score") if name in point})
        seconds = self.before + time.perf_counter() - self.started
        point |= {"timesteps": self.model.num_timesteps, "seconds": round(seconds, 3)}
        record = self.record
        record.update(timesteps=point["timesteps"], seconds=point["seconds"])
        record["curve"].append(point)
        if record["best"] is None or point["reward"] > record["best"]["reward"]:
            record["best"] = point
            write(self.folder / "model.zip", to_bytes(self.model))
        record["ended"] = ended or self._why_to_end()
        record["finished"] = record["ended"] is not None
        if not record["finished"]:
            write(self.folder / "checkpoint.zip", self._checkpoint())
        write(self.folder / "run.json", to_json(record))
        if record["finished"]:
            (self.folder / "checkpoint.zip").unlink(missing_ok=True)

    def _why_to_end(self) -> str | None:
        record = self.record
        patience = record["hyperparams"].get("patience")
        worse = sum(point["timesteps"] > record["best"]["timesteps"] for point in record["curve"])
        if patience is not None and worse >= patience:
            return "patience"
        return "stopped" if self.stop is not None and self.stop(record) else None

    def _checkpoint(self) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("record.json", to_json(self.record))
            archive.writestr("model.zip", to_bytes(self.model))
            if isinstance(self.model, WITH_MEMORY):
                buffer = io.BytesIO()
                self.model.save_replay_buffer(buffer)
                archive.writestr("replay_buffer.pkl", buffer.getvalue())
        return stream.getvalue()

    def close(self) -> None:
        """Close the progress bar and the log."""
        self.bar.close()
        if hasattr(self, "model"):  # learning may fail before its first callback
            self.logger.close()
