"""Search spaces as data: ``search_spaces/<algorithm>.yml``, the hyper-parameters that a study varies.

An entry is ``{choices: [...]}`` or ``{low: a, high: b}``, of integers where both are; ``log: true`` draws on a
logarithmic scale, ``schedule: lin`` or ``cos`` makes a schedule that starts at the number. A dotted name is an entry
of a table: ``policy_kwargs.width``. A file that holds nothing but a name has the entries of that algorithm's file.
"""

from __future__ import annotations

import copy
import inspect
import math
from pathlib import Path
from typing import Any

import yaml

from semcom_gym.agents import hyperparams as hp
from semcom_gym.envs import validate

Space = dict[str, dict[str, Any]]
RANGE = ("low", "high", "log", "schedule")
BESIDE = ("n_envs", "noise_std")  # what may be searched beside the arguments of the algorithm's constructor
TABLE = "policy_kwargs"
DIGITS = 3


def load(algo: str, file: str | Path | None = None) -> Space:
    """The search space of an algorithm, out of ``file`` or of the one of this package.

    Raises ValueError or TypeError, in one line, for a file that cannot be read, a name that is no hyper-parameter of
    the algorithm and a range that is none.
    """
    validate.choice("algorithm", algo, hp.ALGORITHMS)
    space = hp.read(algo, "search_spaces") if file is None else _read(Path(file))
    known = [*inspect.signature(hp.ALGORITHMS[algo][0].__init__).parameters, *BESIDE]
    for name, entry in space.items():
        head, dot, _ = str(name).partition(".")
        validate.choice(f"hyper-parameter of {algo}", head, [x for x in known if x not in ("self", "policy", "env")])
        if bool(dot) != (head == TABLE):
            raise ValueError(f"search space: {name!r} must be a name, or an entry of {TABLE} as in {TABLE}.width")
        _check(str(name), entry)
    return space


def distributions(space: Space) -> dict[str, Any]:
    """The space in Optuna's words."""
    from optuna import distributions as of

    found: dict[str, Any] = {}
    for name, entry in space.items():
        if "choices" in entry:
            found[name] = of.CategoricalDistribution(entry["choices"])
        else:
            kind = of.IntDistribution if _is_whole(entry) else of.FloatDistribution
            found[name] = kind(entry["low"], entry["high"], log=entry.get("log", False))
    return found


def apply(space: Space, settings: dict[str, Any], drawn: dict[str, Any]) -> dict[str, Any]:
    """A copy of hyper-parameters with the drawn values, which are rounded to three digits."""
    settings = copy.deepcopy(settings)
    for name, value in drawn.items():
        table, key = _place(settings, name)
        table[key] = _spelled(space[name], value)
    return settings


def found_in(space: Space, settings: dict[str, Any]) -> dict[str, Any]:
    """What :func:`apply` would have to be handed to give ``settings``, where the space contains it."""
    drawn = {name: _drawn(space[name], value) for name, value in values(space, settings).items()}
    return {name: value for name, value in drawn.items() if value is not None}


def values(space: Space, settings: dict[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of a space out of ``settings``, by their names in the space."""
    found = {}
    for name in space:
        table, key = _place(copy.deepcopy(settings), name)
        found[name] = table.get(key)
    return found


def _place(settings: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    head, dot, key = name.partition(".")
    return (settings.setdefault(head, {}), key) if dot else (settings, head)


def _spelled(entry: dict[str, Any], value: Any) -> Any:
    if "choices" in entry or _is_whole(entry):
        return value
    value = float(f"{value:.{DIGITS}g}")
    return f"{entry['schedule']}_{value:g}" if "schedule" in entry else value


def _drawn(entry: dict[str, Any], value: Any) -> Any:
    """A hyper-parameter without its schedule; None where the entry does not contain it."""
    if "choices" in entry:
        return value if value in entry["choices"] else None
    if "schedule" in entry:
        kind, _, value = str(value).partition("_")
        if kind != entry["schedule"]:
            return None
        value = float(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and entry["low"] <= value <= entry["high"] else None


def _read(file: Path) -> Space:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"search space {str(file)!r} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"search space {str(file)!r} must be a table of hyper-parameters")
    return found


def _check(name: str, entry: Any) -> None:
    what = f"search space of {name}"
    if not isinstance(entry, dict):
        raise TypeError(f"{what} must be a table with choices, or with low and high, got {entry!r}")
    if "choices" in entry:
        validate.keywords(what, entry, ("choices",))
        _check_choices(what, entry["choices"])
        return
    validate.keywords(what, entry, RANGE)
    if "schedule" in entry:
        validate.choice(f"schedule of {name}", entry["schedule"], hp.SCHEDULES)
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise TypeError(f"log of {what} must be true or false, got {log!r}")
    for end in ("low", "high"):
        validate.number(f"{end} of {what}", entry.get(end), low=0.0 if log else -math.inf)
    validate.not_above(f"low of {what}", entry["low"], "high", entry["high"])


def _check_choices(what: str, choices: Any) -> None:
    if not isinstance(choices, list) or not choices:
        raise TypeError(f"choices of {what} must be a list, got {choices!r}")
    for value in choices:
        if not isinstance(value, (bool, int, float, str)):
            raise TypeError(f"choices of {what} must be numbers, text, true or false, got {value!r}")


def _is_whole(entry: dict[str, Any]) -> bool:
    return isinstance(entry["low"], int) and isinstance(entry["high"], int) and "schedule" not in entry
