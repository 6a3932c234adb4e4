"""``semcom-gym generalise``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semcom_gym import baselines
from semcom_gym.benchmarks import protocol, store
from semcom_gym.benchmarks.commands import Job, add, cells, ids_of, open_cells
from semcom_gym.envs import validate


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = add(
        commands, "generalise", _generalise, "score agents on problems that they were not trained on",
        "  semcom-gym generalise all\n"
        "  semcom-gym generalise SemCom/CRRA-v0 --shift '20 users' 'power -3 dB' --agent APG=runs/a,runs/b\n\n"
        "More or fewer users, other budgets, channels and curves: nothing is trained again. Beside the agents stand\n"
        "the anchor, the published algorithm and the fast solver; every score is to a proven bound.\n"
        "Finished work is kept in the folder of --cells: after Ctrl-C, the same command goes on where it stopped.",
    )  # fmt: skip
    parser.add_argument("ids", nargs="*", metavar="ID", help="environments, or all (default: all)")
    parser.add_argument("--shift", nargs="+", metavar="NAME", help="shifts, as named in the table (default: all)")
    parser.add_argument(
        "--agent", nargs="+",
        help="agents: NAME=FOLDER,FOLDER of training runs, each on the id it was trained for; apg, apg_varied: "
        "shipped, on the ids that have one (default: those shipped for the id's own preset)",
    )  # fmt: skip
    parser.add_argument("-n", "--instances", type=int, default=50, help="of every shift (default: %(default)s)")
    parser.add_argument(
        "--slow", type=int, default=10, metavar="N",
        help="instances that the published algorithm decides, which takes up to a second each (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--split", default="test", help="train, validation or test (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where agents run: cpu, cuda (default: %(default)s)")
    parser.add_argument("--refine", type=int, default=0, metavar="STEPS", help="also score agents after gradient steps")
    parser.add_argument("--out", default="results/generalise", help="folder of results (default: %(default)s)")
    cells(parser)


def _generalise(args: argparse.Namespace) -> Job:
    for module in ("tqdm", "matplotlib"):
        baselines.solution.require(module, "generalise")
    from semcom_gym.benchmarks import generalise

    ids = ids_of(args.ids)
    for name in args.shift or []:
        validate.choice("shift", name, dict.fromkeys(shift for env_id in ids for shift in generalise.SHIFTS[env_id]))
    validate.integer("--slow", args.slow)
    found = []
    for env_id in ids:
        for shift, task in generalise.tasks(env_id, args.shift, args.instances, args.split).items():
            found.append(generalise.entry(shift, task, _agents(task, args), args.slow))
    out = store.make_folder(args.out)
    kept = open_cells(args)
    return Job(lambda: _run(found, kept, out, args), _show, kept.kept)


def _agents(task: protocol.Task, args: argparse.Namespace) -> list[Any]:
    from semcom_gym.benchmarks import competitors

    specs = competitors.shipped(task) if args.agent is None else _of_id(task.env_id, args)
    steps = [0, args.refine] if args.refine and not task.stepwise else [0]
    return [competitors.agent(task, spec, args.device, count) for spec in specs for count in steps]


def _of_id(env_id: str, args: argparse.Namespace) -> list[str]:
    """The agents named that were trained for an id. Raises ValueError for one of no id that is asked for."""
    from semcom_gym.benchmarks import competitors

    ids = ids_of(args.ids)
    trained = {spec: competitors.trained_for(spec) for spec in args.agent}
    for spec, names in trained.items():
        if not set(names) & set(ids):
            raise ValueError(f"the agent {spec!r} is for {names[0]}, which is not among the environments asked for")
    return [spec for spec, names in trained.items() if env_id in names]


def _run(found: list[Any], kept: store.Store, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    from semcom_gym.benchmarks import generalise, speed

    kept.cells([work for entry in found for work in generalise.needed(entry)], "generalise")
    rows = [row for entry in found for row in generalise.rows(entry, kept)]
    made = {"command": args.line, "machine": speed.machine(None), "code": store.code_version("envs", "baselines")}
    files = [out / "generalise.md", out / "generalise.csv", out / "generalise.json"]
    about = f"Made by `{args.line}` with code {made['code']}.\n{_drawn(args.agent or [])}"
    store.write_atomically(files[0], f"# Generalisation\n\n{about}\n{generalise.markdown(rows)}")
    store.write_atomically(files[1], generalise.csv_text(rows))
    store.write_atomically(files[2], store.dumps({"made": made, "rows": rows}, indent=1) + "\n")
    files.append(generalise.picture(rows, out / "generalise.png"))
    return {"rows": rows, "files": [str(file) for file in files]}


def _drawn(specs: list[str]) -> str:
    """Of every agent that was trained on drawn problems, which."""
    from semcom_gym.benchmarks import competitors

    lines = []
    for spec in specs:
        for env_id, vary in competitors.varied_by(spec).items():
            values = "; ".join(f"`{name}` {', '.join(map(str, values))}" for name, values in vary.items())
            name = spec.rpartition("=")[0] or spec
            lines.append(f"\n{name} of {env_id.removeprefix('SemCom/')} was trained on all combinations of {values}.\n")
    return "".join(lines)


def _show(found: dict[str, Any]) -> str:
    from semcom_gym.benchmarks import generalise

    return "\n\n".join([generalise.text(found["rows"]), "\n".join(["written:", *found["files"]])])
