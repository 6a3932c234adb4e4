"""Search for hyper-parameters: an Optuna study of training runs, judged by the validation split.

The folder of a study holds ``study.json`` (what is searched), ``study.db`` (Optuna's storage), ``reference.json`` (the
proven bounds of the validation instances), a training run per trial in ``trial_000`` and so on, ``trials.csv`` and
``best.yml``, an entry of ``hyperparams/<algorithm>.yml``.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from semcom_gym import __version__
from semcom_gym.agents import hyperparams as hp
from semcom_gym.agents import search_space
from semcom_gym.agents.callbacks import Reference
from semcom_gym.agents.store import check_identity, file_name, make_folder, read_json, to_json, write
from semcom_gym.agents.training import Run, train
from semcom_gym.agents.vec_env import make_vec_env
from semcom_gym.envs import FADING_IDS, default_preset, validate

STARTUP = 5  # trials drawn at random before the sampler models them, and finished ones before the pruner compares
WARM_UP = 0.3  # of the validations of a run, before the pruner looks at it
COLUMNS = ("trial", "score", "ended", "reward", "feasible", "timesteps", "seconds")
KEPT = ("ended", "best", "timesteps", "seconds", "hyperparams")  # of the record of a run, beside its trial
SQLITE = b"SQLite format 3\0"


@dataclasses.dataclass(frozen=True)
class Study:
    """A study: its folder, a table of trials (COLUMNS and hyper-parameters), and the best trial, None if all diverged.

    score of a trial: of its best model by validation reward; NaN if it was pruned or diverged.
    """

    folder: Path
    trials: list[dict[str, Any]]
    best: dict[str, Any] | None


def tune(
    env_id: str,
    algo: str = "apg",
    *,
    trials: int = 20,
    timesteps: int | None = None,
    num_envs: int | None = None,
    preset: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    space: str | Path | None = None,
    evaluations: int = 10,
    validation: int = 100,
    scored: int = 20,
    progress: bool = True,
    **overrides: Any,
) -> Study:
    """Train ``trials`` times with other hyper-parameters; the better the validation score, the better the trial.

    The first trial has the hyper-parameters of ``agents/hyperparams``, the next are drawn from the search space, after
    STARTUP trials by Optuna's TPE sampler. A trial whose validation score is below the median of the others at the
    same step is pruned. All trials have the same ``seed``, so that they differ in hyper-parameters only.

    timesteps, num_envs, validation and overrides are those of :func:`train`, of every trial. space: file of a search
    space; that of the algorithm in ``agents/search_spaces`` if None. out: folder of the study,
    ``runs/tune_<id>_<preset>_<algo>_seed<seed>`` if None. evaluations: validations of a trial. scored: validation
    instances with a certified score (one proof each, once). The test split is never touched.

    A study goes on where it stopped, within a trial from its last checkpoint, and ends as an unbroken one; a finished
    one goes on with a larger ``trials``. Raises ModuleNotFoundError without Optuna, KeyboardInterrupt after Ctrl-C,
    ValueError or TypeError, in one line, for what is not valid.
    """
    if env_id in FADING_IDS:
        raise ValueError(f"tune scores one decision an episode, not the blocks of {env_id}")
    optuna = require_optuna()
    for name, value in {"trials": trials, "evaluations": evaluations, "validation": validation}.items():
        validate.integer(name, value)
    validate.integer("seed", seed, low=0)
    validate.integer("scored", scored)
    env_id = env_id.removeprefix("semcom_gym:")
    preset = default_preset(env_id) if preset is None else preset
    settings = hp.load(env_id, algo, None, n_timesteps=timesteps, n_envs=num_envs)
    dimensions = search_space.load(algo, space)
    venv = make_vec_env(env_id, 1, preset=preset, **overrides).venv.unwrapped
    folder = Path("runs", f"tune_{file_name(env_id, algo, preset)}_seed{seed}") if out is None else Path(out)
    fixed = {"preset": preset, "seed": seed, "evaluations": evaluations, "validation": validation}
    identity = {"env_id": env_id, "algo": algo, **fixed, "scored": scored, "overrides": overrides}
    identity |= {"hyperparams": settings, "search_space": dimensions, "version": __version__}
    with _storage_errors(folder):
        study = _open(optuna, folder, identity)
        reference = _reference(folder, venv, min(scored, validation))
        options = {**fixed, **overrides, "device": device, "reference": reference}
        work = _Work(optuna, study, folder, identity, options)
        with tqdm(total=trials, initial=min(work.index, trials), unit="trial", disable=not progress) as bar:
            while work.index < trials:
                work.next(progress)
                bar.update()
        return work.result()


def count(folder: str | Path) -> int:
    """How many finished trials the study in ``folder`` has."""
    file = Path(folder, "trials.csv")
    return len(file.read_text(encoding="utf-8").splitlines()) - 1 if file.exists() else 0


class _Work:
    """The trials of a study, one after another."""

    def __init__(
        self, optuna: Any, study: Any, folder: Path, identity: dict[str, Any], options: dict[str, Any]
    ) -> None:
        self.optuna, self.study, self.folder, self.identity, self.options = optuna, study, folder, identity, options
        self.space = identity["search_space"]

    @property
    def settled(self) -> list[Any]:
        """The trials that are over, in order; not those that were interrupted, which are made again."""
        states = self.optuna.trial.TrialState
        return self.study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))

    @property
    def index(self) -> int:
        """How many trials are over: the number of the next."""
        return len(self.settled)

    def next(self, progress: bool) -> None:
        """Make one trial."""
        states = self.optuna.trial.TrialState
        index = self.index
        for broken in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self.study.tell(broken.number, state=states.FAIL)  # it is drawn again, the same, and goes on
        key = np.random.SeedSequence([self.identity["seed"], index]).generate_state(1)
        self.study.sampler = self.optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=int(key[0]))
        if index == 0 and not self.study.get_trials(deepcopy=False, states=(states.WAITING,)):
            self.study.enqueue_trial(search_space.found_in(self.space, self.identity["hyperparams"]))
        trial = self.study.ask(search_space.distributions(self.space))
        settings = search_space.apply(self.space, self.identity["hyperparams"], trial.params)
        try:
            record = self._train(trial, index, settings, progress).record
        except FloatingPointError:
            record = {"ended": "diverged", "finished": True, "hyperparams": settings}
        if not record["finished"]:
            raise KeyboardInterrupt
        self._settle(trial, record)
        self._write()

    def _train(self, trial: Any, index: int, settings: dict[str, Any], progress: bool) -> Run:
        reported = 0

        def prune(record: dict[str, Any]) -> bool:
            nonlocal reported
            for step, point in list(enumerate(record["curve"]))[reported:]:
                trial.report(point["score"], step)
                reported = step + 1
            return bool(trial.should_prune())

        run = train(
            self.identity["env_id"], self.identity["algo"], out=self.folder / f"trial_{index:03}", resume=True,
            hyperparams=settings, stop=prune, progress=progress, **self.options,
        )  # fmt: skip
        prune(run.record)  # the last point, and all of a run that was over when the study was interrupted
        return run

    def _settle(self, trial: Any, record: dict[str, Any]) -> None:
        """Tell the study how a trial ended; one that diverged counts as pruned, so that the sampler avoids it."""
        trial.set_user_attr("record", {name: record[name] for name in KEPT if name in record})
        if record["ended"] in ("stopped", "diverged"):
            self.study.tell(trial, state=self.optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(trial, record["best"]["score"])

    def result(self) -> Study:
        """The study so far."""
        trials = [self._row(index, trial) for index, trial in enumerate(self.settled)]
        over = [row for row in trials if np.isfinite(row["score"])]
        return Study(self.folder, trials, max(over, key=lambda row: row["score"], default=None))

    def _row(self, index: int, trial: Any) -> dict[str, Any]:
        """The cells of a trial; NaN where there is no number."""
        record = trial.user_attrs["record"]
        complete = trial.state == self.optuna.trial.TrialState.COMPLETE
        numbers = {**record.get("best", {}), **record}
        ended = "pruned" if record["ended"] == "stopped" else record["ended"]
        cells = {"trial": index, "score": trial.value if complete else None, "ended": ended}
        cells |= {name: numbers.get(name) for name in COLUMNS if name not in cells}
        row = {name: float("nan") if value is None else value for name, value in cells.items()}
        return row | search_space.values(self.space, record["hyperparams"])

    def _write(self) -> None:
        """The table, and the best trial's hyper-parameters."""
        found = self.result()
        stream = io.StringIO()
        writer = csv.DictWriter(stream, [*COLUMNS, *self.space], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found.trials)
        write(self.folder / "trials.csv", stream.getvalue().encode())
        if found.best is None:
            return
        settings = self.settled[found.best["trial"]].user_attrs["record"]["hyperparams"]
        about = (
            f"# Trial {found.best['trial']} of {len(found.trials)} with {self.identity['algo']}, preset "
            f"{self.identity['preset']}, seed {self.identity['seed']}: validation score {found.best['score']:.4f}.\n"
        )
        entry = yaml.safe_dump({self.identity["env_id"]: settings}, sort_keys=False)
        write(self.folder / "best.yml", (about + entry).encode())


def require_optuna() -> Any:
    """Optuna, quiet. Raises ModuleNotFoundError in one line if it is missing."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise ModuleNotFoundError("tuning needs optuna: pip install 'semcom-gym[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """What the database cannot do, such as to grow on a full disk, as a ValueError in one line."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, DBAPIError) else error.__cause__  # Optuna wraps most, not all
        if isinstance(cause, DBAPIError):
            raise ValueError(f"storage {str(folder / 'study.db')!r} cannot be used: {cause.orig}") from None
        raise


def _open(optuna: Any, folder: Path, identity: dict[str, Any]) -> Any:
    """Optuna's study in ``folder``, which must be of the same identity; a new one where there is none."""
    make_folder(folder)
    file, data = folder / "study.json", folder / "study.db"
    if file.exists():
        check_identity(read_json(file, "study"), identity, f"study in {str(folder)!r}")
    else:
        write(file, to_json(identity))
    content = data.read_bytes() if data.exists() else b""
    if content and not content.startswith(SQLITE):  # of a database that could not be begun the file is empty
        raise ValueError(f"storage {str(data)!r} is corrupt: no SQLite file")
    steps = max(1, round(WARM_UP * identity["evaluations"]))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=steps)
    return optuna.create_study(
        storage=f"sqlite:///{data}", study_name="study", direction="maximize", pruner=pruner, load_if_exists=True
    )


def _reference(folder: Path, venv: Any, scored: int) -> Reference:
    """The proven bounds of the first validation instances, proven once for all trials."""
    file = folder / "reference.json"
    if not file.exists():
        instance = venv.problem.sample_split(venv.params, "validation", scored)
        found = Reference.prove(venv.problem, venv.params, instance)
        numbers = {name: [x if np.isfinite(x) else None for x in value] for name, value in vars(found).items()}
        write(file, to_json(numbers))
    stored = read_json(file, "reference")
    if set(stored) != {"anchor", "bound"}:
        raise ValueError(f"reference {str(file)!r} is corrupt: it must hold anchor and bound")
    reference = Reference(*(np.array(stored[name], float) for name in ("anchor", "bound")))
    if not np.isfinite(reference.score(reference.bound, np.ones(scored, bool))).any():
        raise ValueError(
            f"no score to tune by: the anchor solves none of {scored} validation instance(s), or is optimal"
        )
    return reference
