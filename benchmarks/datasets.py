"""Minari data sets of an expert's episodes, written at once or not at all, in chunks that an interruption keeps.

While a data set is made, finished chunks lie in ``ROOT/.partial``; the same job goes on from there. The data set itself
is written beside them and then renamed, so that one that can be seen is whole.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from semcom_gym import __version__, baselines
from semcom_gym.baselines.solution import require
from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.collect import Episodes, Player, Source, collect
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.benchmarks.progress import bar

CHUNK = 256  # episodes played at once
NAME = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")


@dataclasses.dataclass(frozen=True)
class Job:
    """A data set to be: its name in Minari's form (``folder/name-v0``), its root folder, episodes and expert."""

    name: str
    root: Path
    source: Source
    expert: Player

    @property
    def folder(self) -> Path:
        """Where the data set will be."""
        return self.root / self.name

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the content."""
        where, task = self.source, self.source.task
        return {
            "env": task.env_id, "preset": task.preset, "overrides": task.overrides, "params": store.plain(task.params),
            "curves": store.digest(task.params.curve_numbers), "split": None if where.seed is not None else task.split,
            "seed": where.seed, "episodes": where.n, "noise": where.noise, "certified": where.certified,
            "expert": {"name": self.expert.name, **self.expert.key},
        }  # fmt: skip

    @property
    def partial(self) -> Path:
        """The folder of its finished chunks."""
        return self.root / ".partial" / f"{self.name.replace('/', '-')}-{store.digest(self.identity)[:12]}"

    def kept(self) -> str:
        """One line on what an interruption leaves."""
        done = len(list(self.partial.glob("*.npz")))
        return f"{done} finished chunk(s) are kept in {self.partial}; the same command goes on from there"


def job(name: str, root: str | Path | None, source: Source, expert: Player) -> Job:
    """A data set to be made, checked.

    root: Minari's own folder if None (``MINARI_DATASETS_PATH``, or ``~/.minari/datasets``). Raises ValueError for a
    name that is not of Minari's form or is taken by another data set, ModuleNotFoundError without Minari.
    """
    require("minari", "a data set")
    require("h5py", "a data set")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"the name of a data set must look like folder/name-v0, got {name!r}")
    if root is None:
        from minari.storage import get_dataset_path

        root = get_dataset_path()
    made = Job(name, store.make_folder(root).resolve(), source, expert)  # Minari's sizes need an absolute path
    if made.folder.exists() and (_record(made.folder) or {}).get("identity") != store.plain(made.identity):
        raise ValueError(f"{str(made.folder)!r} holds something else: name the data set otherwise")
    return made


def write(made: Job) -> dict[str, Any]:
    """Make the data set, or find it made; what its metadata says under ``semcom_gym``."""
    found = _record(made.folder)
    if found is None:
        episodes = _episodes(made)
        found = _summary(made, episodes)
        _store(made, episodes, found)
        shutil.rmtree(made.partial)
    return found


def _record(folder: Path) -> dict[str, Any] | None:
    """What the metadata of a data set says of how it was made, or None where there is no data set of ours."""
    from minari.dataset.minari_storage import MinariStorage

    try:
        return dict(MinariStorage.read_raw_metadata(folder / "data")["semcom_gym"])
    except (OSError, ValueError, KeyError):
        return None


# --- chunks ----------------------------------------------------------------------------------------------------------
def _episodes(made: Job) -> Episodes:
    """All episodes; those of chunks that are missing are played."""
    store.make_folder(made.partial)
    starts = range(0, made.source.n, CHUNK)
    parts = []
    with bar(made.source.n, "episodes") as progress:
        for start in starts:
            stop = min(start + CHUNK, made.source.n)
            path = made.partial / f"{start:08d}.npz"
            if not path.exists():
                store.write_atomically(path, _to_bytes(collect(made.source, made.expert, start, stop)))
            parts.append(_read(path))
            progress.update(stop - start)
    return Episodes.joined(parts)


def _to_bytes(episodes: Episodes) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **vars(episodes))
    return stream.getvalue()


def _read(path: Path) -> Episodes:
    try:
        with np.load(path) as held:
            return Episodes(**held)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"chunk {str(path)!r} is corrupt ({error}): delete it and run again") from None


# --- Minari ----------------------------------------------------------------------------------------------------------
def _summary(made: Job, episodes: Episodes) -> dict[str, Any]:
    """What the metadata says: how the data set was made, and how good its decisions are against the proven optimum.

    Means are over the episodes kept; ``bound``, ``anchor`` and ``score`` over those of them that have a score.
    """
    task, kept = made.source.task, episodes.known
    if not kept.any():
        raise UserError(f"{made.expert.name!r} has no decision for any of the {len(kept)} episode(s)")
    scored = kept & np.isfinite(episodes.score)
    means = {name: getattr(episodes, name)[scored].mean() if scored.any() else None
             for name in ("bound", "anchor", "score")}  # fmt: skip
    return store.plain({
        "identity": made.identity, "code": store.code_version("envs", "baselines", "agents", "benchmarks"),
        "episodes": int(kept.sum()), "left_out": int((~kept).sum()), "scored": int(scored.sum()),
        "mean_return": episodes.reward[kept].sum(axis=1).mean(),
        "mean_objective": episodes.objective[kept].sum(axis=1).mean(), "maximise": task.problem.maximise,
        "feasible": episodes.feasible[kept].mean(), "anchor_method": baselines.anchor(task.problem.name), **means,
    })  # fmt: skip


def _store(made: Job, episodes: Episodes, summary: dict[str, Any]) -> None:
    """Write the data set into a folder of its own and rename it."""
    from minari.dataset.minari_storage import MinariStorage

    staging = made.partial / "dataset"
    shutil.rmtree(staging, ignore_errors=True)
    data = staging / "data"
    data.mkdir(parents=True)
    rows = np.flatnonzero(episodes.known)
    spec = _env_spec(made)
    env = gym.make(spec)
    held = MinariStorage.new(data, env.observation_space, env.action_space, spec, data_format="hdf5")
    held.update_metadata(_metadata(made, summary))
    with bar(len(rows), "writing") as progress:
        held.update_episodes(_buffers(made.source, episodes, rows, progress))
    held.update_episode_metadata([_episode_metadata(episodes, row) for row in rows])
    made.folder.parent.mkdir(parents=True, exist_ok=True)
    staging.replace(made.folder)


def _env_spec(made: Job) -> Any:
    task = made.source.task
    spec = copy.deepcopy(gym.spec(task.env_id))
    spec.kwargs = {"preset": task.preset, **task.overrides}
    return spec


def _metadata(made: Job, summary: dict[str, Any]) -> dict[str, Any]:
    import minari

    task = made.source.task
    found = {
        "dataset_id": made.name, "minari_version": minari.__version__, "author": {"semcom-gym"},
        "algorithm_name": made.expert.name, "requirements": [f"semcom-gym=={__version__}"],
        "description": f"{summary['episodes']} episodes of {task.label}, decided by {made.expert.name}. Reference "
        "scores: mean return of the anchor method and mean certified bound of the episodes that have one.",
        "semcom_gym": summary,
    }  # fmt: skip
    if summary["scored"]:
        sign = task.sign
        found |= {"ref_min_score": sign * summary["anchor"], "ref_max_score": sign * summary["bound"],
                  "num_episodes_average_score": summary["scored"]}  # fmt: skip
    return found


def _buffers(where: Source, episodes: Episodes, rows: Any, progress: Any) -> Any:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    for row in rows:
        infos = {name: getattr(episodes, name)[row] for name in ("objective", "feasible", "cost")}
        yield EpisodeBuffer(
            seed=None if where.seed is None else where.seed + int(row), infos=infos,
            observations=episodes.observation[row], actions=episodes.action[row], rewards=episodes.reward[row],
            terminations=episodes.terminated[row], truncations=episodes.truncated[row],
        )  # fmt: skip
        progress.update()


def _episode_metadata(episodes: Episodes, row: int) -> dict[str, float]:
    """``row``: of the split, or added to the seed; ``bound``, ``anchor``, ``score``: NaN where there is none."""
    return {"row": int(row)} | {name: float(getattr(episodes, name)[row]) for name in ("bound", "anchor", "score")}
