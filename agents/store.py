"""Files of agents: atomic writes, and the shipped agents with their cards."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from semcom_gym.agents.hyperparams import ALGORITHMS
from semcom_gym.agents.vec_env import make_vec_env
from semcom_gym.envs import default_preset, validate
from semcom_gym.envs.files import write_atomically

SHIPPED = Path(__file__).parent / "shipped"
CARD = ("env_id", "preset", "algo", "seed", "command", "versions", "timesteps", "seconds", "sha256", "scores")
VARIED = "_varied"  # behind the algorithm in the name of an agent that was trained on drawn problems


def make_folder(folder: Path) -> None:
    """Make a folder that may exist. Raises ValueError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from None


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises ValueError, in one line, if it cannot be."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror}") from None


def check_identity(record: dict[str, Any], identity: dict[str, Any], what: str) -> None:
    """Raise ValueError unless a stored record has every entry of ``identity``."""
    for name, value in identity.items():
        if record.get(name) != json.loads(to_json(value)):
            raise ValueError(f"the {what} was made with {name} {record.get(name)!r}, not {value!r}")


def to_json(value: Any) -> bytes:
    """Indented JSON text."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError that names ``what`` it should be."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} {str(path)!r} is missing or corrupt: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} {str(path)!r} is corrupt: it must hold one object")
    return value


def to_bytes(model: BaseAlgorithm) -> bytes:
    """SB3's zip file of a model."""
    stream = io.BytesIO()
    model.save(stream)
    return stream.getvalue()


def shipped(folder: str | Path = SHIPPED) -> list[dict[str, Any]]:
    """The cards of all agents in a folder, sorted by file name."""
    return [_read_card(path) for path in sorted(Path(folder).glob("*.json"))]


def load(
    env_id: str,
    algo: str | None = None,
    preset: str | None = None,
    *,
    num_users: int | None = None,
    device: str = "cpu",
    folder: str | Path = SHIPPED,
) -> BaseAlgorithm:
    """A shipped agent, checked against the hash on its card before it is opened.

    algo: the one that ships for the id and preset if None; ``"apg_varied"`` for the one trained on drawn problems.
    preset: the id's own default if None. num_users: of the cells it is for, that of the preset if None; the weights
    are the same for all. Raises ValueError, in one line, where there is no such agent or its file is not what its card
    says.
    """
    overrides = {} if num_users is None else {"num_users": num_users}
    env = make_vec_env(env_id, 1, preset=preset, **overrides)
    algo = _shipped_algo(env_id, preset, folder) if algo is None else algo
    validate.choice("algorithm", algo, [*ALGORITHMS, f"apg{VARIED}"])
    name = file_name(env_id, algo, preset)
    path = Path(folder) / f"{name}.zip"
    names = [card.stem for card in sorted(Path(folder).glob("*.json"))]
    if name not in names:
        raise ValueError(f"no shipped agent {name!r}; shipped: {', '.join(names) or 'none'}")
    card = _read_card(path.with_suffix(".json"))
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise ValueError(f"agent file {path.name!r} is {'corrupt' if content else 'missing'}: not what its card names")
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    return ALGORITHMS[algo.removesuffix(VARIED)][0].load(io.BytesIO(content), device=device, custom_objects=spaces)


def _shipped_algo(env_id: str, preset: str | None, folder: str | Path) -> str:
    """The first algorithm that ships for an id and preset; that of most agents where none does."""
    stem = file_name(env_id, "", preset)
    names = [path.stem for path in sorted(Path(folder).glob("*.json")) if not path.stem.endswith(VARIED)]
    return next((name.removeprefix(stem) for name in names if name.startswith(stem)), "apg")


def ship(run: str | Path, scores: dict[str, Any] | None = None, folder: str | Path = SHIPPED) -> Path:
    """Copy the best model of a training run, without its optimiser's state, and write its card. Returns the file.

    run: folder that ``train`` wrote. scores: what the card says beside the validation result of the run, for example
    the mean score on the test split. Raises ValueError if the run is not finished.
    """
    run = Path(run)
    record = read_json(run / "run.json", "training run")
    if not record["finished"]:
        raise ValueError(f"the training run in {str(run)!r} is not finished; train with resume=True first")
    model = ALGORITHMS[record["algo"]][0].load(run / "model.zip", device="cpu")
    for optimizer in _optimizers(model):
        optimizer.state.clear()
    model._last_obs = None
    model.ep_info_buffer = model.ep_success_buffer = None
    content = to_bytes(model)
    card = {name: record[name] for name in CARD if name in record}
    if record.get("vary"):
        card |= {"algo": record["algo"] + VARIED, "vary": record["vary"]}
    card["sha256"] = hashlib.sha256(content).hexdigest()
    card["scores"] = {"validation": record["best"], **(scores or {})}
    path = Path(folder) / f"{file_name(card['env_id'], card['algo'], card['preset'])}.zip"
    write(path, content)
    write(path.with_suffix(".json"), to_json(card))
    return path


def file_name(env_id: str, algo: str, preset: str | None) -> str:
    """Stem of a shipped agent's files."""
    env_id = env_id.removeprefix("semcom_gym:")
    return f"{env_id.removeprefix('SemCom/')}_{preset or default_preset(env_id)}_{algo}"


def _read_card(path: Path) -> dict[str, Any]:
    card = read_json(path, "agent card")
    if not set(CARD) <= set(card):
        raise ValueError(f"agent card {path.name!r} is corrupt: it must hold {', '.join(CARD)}")
    return card


def _optimizers(model: BaseAlgorithm) -> list[Any]:
    """Every optimiser that SB3 saves with the model."""
    names = [name for name in model._get_torch_save_params()[0] if name.endswith("optimizer")]
    return [recursive_getattr(model, name) for name in names]
