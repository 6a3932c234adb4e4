"""What the subcommands share: a job with its report, and arguments in the same words everywhere."""

from __future__ import annotations

import argparse
import ast
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semcom_gym import envs
from semcom_gym.benchmarks import machines, protocol, store
from semcom_gym.envs import validate

ALL = "all"


@dataclasses.dataclass(frozen=True)
class Job:
    """Work whose arguments have been checked. run: does it; show: its result as text; kept: what Ctrl-C leaves."""

    run: Callable[[], Any]
    show: Callable[[Any], str]
    kept: Callable[[], str] = lambda: "nothing was written"


def add(commands: Any, name: str, prepare: Callable[[argparse.Namespace], Job], summary: str, example: str) -> Any:
    """A subcommand: one line for the overview, a page with an example for its own --help."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.set_defaults(prepare=prepare)
    return parser


def ids_of(asked: list[str], fading: Sequence[str] | None = None) -> list[str]:
    """The ids that are asked for, each once: all of one decision where nothing or ``all`` is said.

    fading: those of several decisions that belong to all; None where they cannot be asked for.
    """
    asked = list(dict.fromkeys(asked)) or [ALL]
    for name in asked:
        if fading is None:
            protocol.check_one_decision(name)
        validate.choice("environment id", name, (ALL, *envs.IDS, *(envs.FADING_IDS if fading is not None else ())))
    return [*envs.IDS, *(fading or ())] if ALL in asked else asked


def instances(parser: Any, n: int) -> None:
    """Arguments that say which instances."""
    parser.add_argument("-n", "--instances", type=int, default=n, help="how many instances (default: %(default)s)")
    parser.add_argument(
        "--split", default="test", help="train, validation or test: three disjoint streams (default: %(default)s)"
    )
    overrides(parser)


def learner(parser: Any) -> None:
    """Arguments that say what is trained where, and for how long."""
    parser.add_argument("--env", required=True, help="environment id, as listed by: semcom-gym envs")
    parser.add_argument("--preset", help="parameters of the environment (default: the id's own)")
    parser.add_argument("--timesteps", type=int, help="decisions to train on (default: that of the algorithm)")
    parser.add_argument("--num-envs", type=int, help="environments at once (default: that of the algorithm)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    overrides(parser)


def overrides(parser: Any) -> None:
    """The argument that changes parameters."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="change a parameter of the preset, as in --set num_users=16 (may be repeated)",
    )  # fmt: skip


def varied(parser: Any) -> None:
    """The argument that draws parameters."""
    parser.add_argument(
        "--vary", action="append", default=[], metavar="FIELD=VALUE,...",
        help="train on all combinations of such values in turn, as in --vary num_users=4,8,16 (may be repeated)",
    )  # fmt: skip


def cells(parser: Any) -> None:
    """Arguments that say where finished work is kept, and who computes what is missing."""
    parser.add_argument("--cells", default="results/cells", help="folder of finished work (default: %(default)s)")
    workers(parser)


def workers(parser: Any) -> None:
    """Arguments that say who computes the cells that are missing."""
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="cells computed at once (default: 1; with --backend, all there is room for)",
    )
    parser.add_argument(
        "--backend", help="who computes them: loky (processes of this machine), ray or dask (a running cluster)"
    )
    parser.add_argument("--address", help="of the cluster (default: RAY_ADDRESS or DASK_SCHEDULER_ADDRESS)")


def open_cells(args: argparse.Namespace) -> store.Store:
    """The store that :func:`cells` asks for."""
    return store.Store(args.cells, machines.connect(args.backend, args.jobs, args.address))


def logged(parser: Any) -> None:
    """The argument that says where the TensorBoard log goes."""
    parser.add_argument("--tensorboard", metavar="FOLDER", help="where the log goes (default: OUT/tensorboard)")


def log_folder(given: str | None, out: Path) -> Path:
    """The folder of the log. Raises UserError if the one given cannot be made."""
    return store.make_folder(given) if given else out / "tensorboard"


def parse_overrides(given: list[str]) -> dict[str, Any]:
    """``["a=1", "b=x"]`` -> ``{"a": 1, "b": "x"}``; a value is a Python literal or, failing that, text."""
    values = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals or not name:
            raise ValueError(f"--set needs FIELD=VALUE, got {entry!r}")
        values[name] = _literal(text, text)
    return values


def parse_varied(given: list[str]) -> dict[str, list[Any]]:
    """``["a=1,2", "b=x,y"]`` -> ``{"a": [1, 2], "b": ["x", "y"]}``, values as in :func:`parse_overrides`."""
    values: dict[str, list[Any]] = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals or not name or not text:
            raise ValueError(f"--vary needs FIELD=VALUE,VALUE,..., got {entry!r}")
        if name in values:
            raise ValueError(f"--vary names {name} twice: put all its values into one list")
        values[name] = _literal(f"[{text}]", [_literal(part, part) for part in text.split(",")])
    return values


def _literal(text: str, otherwise: Any) -> Any:
    """What a Python literal says; ``otherwise`` for text that is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return otherwise
