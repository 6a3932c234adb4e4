"""``semcom-gym benchmark`` and ``figures``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import protocol, store, summary, table
from semcom_gym.benchmarks.commands import Job, add, cells, ids_of, instances, open_cells, parse_overrides
from semcom_gym.benchmarks.errors import UserError, user_input
from semcom_gym.envs import validate

FIGURES = ("crra", "sfma", "ascc", "training")


def add_to(commands: Any) -> None:
    """Add the two subcommands."""
    bench = add(
        commands, "benchmark", _benchmark, "score methods and agents against the certified optimum",
        "  semcom-gym benchmark --env SemCom/CRRA-v0 --preset default hard --method fra fast crra -n 100\n"
        "  semcom-gym benchmark all   every id with its own preset, its published algorithm and its agents; of the\n"
        "                             Fading ids those with shipped agents\n"
        "  semcom-gym benchmark SemCom/CRRAFading-v0 --episodes 100\n\n"
        "Finished work is kept in the folder of --cells: after Ctrl-C, the same command goes on where it stopped.",
    )  # fmt: skip
    bench.add_argument("ids", nargs="*", metavar="ID", help="environments, or all; the same as --env")
    bench.add_argument("--env", nargs="+", default=[], metavar="ID", help="environments, or all (default: all)")
    bench.add_argument("--preset", nargs="+", help="presets (default: each environment's own)")
    bench.add_argument(
        "--method", nargs="*", help="solvers; none with no name behind it (default: all but other transceivers)"
    )
    bench.add_argument(
        "--agent", nargs="*",
        help="agents: apg (shipped), FOLDER of a training run, NAME=FOLDER,FOLDER for several training seeds "
        "(default: those shipped for the preset)",
    )  # fmt: skip
    instances(bench, 100)
    bench.add_argument(
        "--episodes", type=int, default=20, help="how many of a Fading id, in place of -n (default: %(default)s)"
    )
    bench.add_argument("--device", default="cpu", help="where agents run: cpu, cuda (default: %(default)s)")
    bench.add_argument(
        "--refine", type=int, default=0, metavar="STEPS",
        help="also score agents after gradient steps, where their actions are continuous",
    )  # fmt: skip
    bench.add_argument(
        "--search", type=int, default=0, metavar="ROUNDS",
        help="also score agents after rounds of random moves, where their actions are continuous",
    )  # fmt: skip
    bench.add_argument(
        "--single", type=int, default=20, metavar="N",
        help="instances that everyone decides one at a time as well, for the time of that; 0 for none "
        "(default: %(default)s)",
    )  # fmt: skip
    bench.add_argument("--prove", action="store_true", help="prove and write the bounds that ship with the package")
    bench.add_argument("--out", default="results/benchmark", help="folder of results (default: %(default)s)")
    bench.add_argument(
        "--chunk", type=int, metavar="N",
        help="instances that a solver decides in one call, a cell each (default: all)",
    )  # fmt: skip
    cells(bench)
    figures = add(
        commands, "figures", _figures, "regenerate a paper's figures, with its claims beside our data",
        "  semcom-gym figures crra --out docs/results/figures/crra\n\n"
        "Finished points are kept in the folder of --cells: after Ctrl-C, the same command goes on where it stopped.",
    )  # fmt: skip
    figures.add_argument("paper", help=f"one of: {', '.join(FIGURES)}")
    figures.add_argument("--only", nargs="+", type=int, metavar="N", help="numbers of figures (default: all)")
    figures.add_argument(
        "-n",
        "--instances",
        type=int,
        help="instances to average over (default: 30 of crra, 1 of ascc, else 100; at most 2 with --quick)",
    )
    figures.add_argument("--success", help="of crra: success model, exact or approximate (default: exact)")
    figures.add_argument("--preset", help="of sfma, training: preset (default: default, paper)")
    figures.add_argument(
        "--slow",
        type=int,
        metavar="N",
        help="instances of what is slow; of sfma: methods (default: 50), of training: the bound (default: 20)",
    )
    figures.add_argument(
        "--bound", action="store_true", default=None, help="of sfma, training: the bound in all figures"
    )
    figures.add_argument(
        "--tables", nargs="+", metavar="CURVE",
        help="of ascc: rate tables of data and of semantic users; a second pair makes Figure 5, of another data set",
    )  # fmt: skip
    figures.add_argument("--bpg", nargs=2, metavar="CURVE", help="of ascc: the same two for BPG")
    figures.add_argument(
        "--djscc", nargs=4, metavar="CURVE",
        help="of ascc: DJSCC for data and semantic users, trained at 10 dB, then trained at the SNR met",
    )  # fmt: skip
    figures.add_argument("--quick", action="store_true", help="only the ends of every axis: a test that all of it runs")
    figures.add_argument("--out", help="folder of CSV files, pictures and claims.md (default: results/figures/PAPER)")
    cells(figures)


# --- benchmark -----------------------------------------------------------------------------------------------------


def _benchmark(args: argparse.Namespace) -> Job:
    changes = parse_overrides(args.overrides)
    asked = [*args.ids, *args.env]
    ids = ids_of(asked, None if args.prove else _with_agents())
    tasks = [
        protocol.task(env_id, preset, n=args.instances, split=args.split, **changes)
        for env_id in ids
        if env_id not in envs.FADING_IDS
        for preset in args.preset or [None]
    ]
    baselines.solution.require("tqdm", "benchmark")
    if args.prove:
        if changes or args.split != "test":
            raise ValueError("--prove writes the bounds of a preset's test split: drop --set and --split")
        kept = open_cells(args)
        return Job(lambda: _prove(tasks, kept), _show_proofs, kept.kept)
    baselines.solution.require("matplotlib", "benchmark")
    entries = [(task, _solvers(task, args) + _agents(task, args)) for task in tasks]
    for task, competitors in entries:
        if not competitors:
            raise ValueError(f"nothing to score on {task.label}: name a --method or an --agent")
    if args.chunk is not None:
        validate.integer("--chunk", args.chunk)
    validate.integer("--single", args.single, low=0)
    fading = _fading([env_id for env_id in ids if env_id in envs.FADING_IDS], changes, args)
    out = store.make_folder(args.out)
    kept = open_cells(args)
    return Job(lambda: _run_benchmark(entries, fading, kept, out, args), _show_boards, kept.kept)


def _with_agents() -> list[str]:
    """The Fading ids that belong to all."""
    from semcom_gym.benchmarks import fading_board

    return fading_board.shipped_ids()


def _fading(ids: list[str], changes: dict[str, Any], args: argparse.Namespace) -> list[Any]:
    """Tasks and competitors of the Fading ids."""
    from semcom_gym.benchmarks import fading_board

    validate.integer("--episodes", args.episodes)
    found = []
    for env_id in ids:
        for preset in args.preset or [None]:
            task = fading_board.task(env_id, preset, n=args.episodes, split=args.split, **changes)
            specs = _specs(task, args)
            found.append((task, fading_board.rivals(task, args.method, specs, args.device)))
    return found


def _solvers(task: protocol.Task, args: argparse.Namespace) -> list[Any]:
    """The methods asked for; without a choice, all that this task and this installation can run."""
    from semcom_gym.benchmarks import competitors

    if args.method is not None:
        chosen = [competitors.solver(task.problem.name, name) for name in args.method]
        for name in args.method:
            protocol.check_method(task, name)
        return chosen
    names = []
    for name in baselines.methods(task.problem.name):
        if baselines.solution.transceiver(task.problem.name, name) is not None:
            continue
        try:
            with user_input():
                protocol.check_method(task, name)
            names.append(name)
        except UserError as error:
            print(f"left out on {task.label}: {name}: {error}", file=sys.stderr)
    return [competitors.solver(task.problem.name, name) for name in names]


def _agents(task: protocol.Task, args: argparse.Namespace) -> list[Any]:
    """The agents asked for; without a choice, those that ship for the preset."""
    from semcom_gym.benchmarks import competitors

    after = [(0, 0)]
    if not task.stepwise:
        after += [(args.refine, 0)] if args.refine else []
        after += [(0, args.search)] if args.search else []
    return [competitors.agent(task, spec, args.device, *more) for spec in _specs(task, args) for more in after]


def _specs(task: Any, args: argparse.Namespace) -> list[str]:
    """The agents asked for; without a choice, those that ship for the preset."""
    from semcom_gym.benchmarks import competitors

    if args.agent is not None:
        return list(args.agent)
    try:
        return competitors.shipped(task)
    except ModuleNotFoundError as error:
        print(f"left out on {task.label}: {error}", file=sys.stderr)
        return []


def _run_benchmark(
    entries: list[Any], fading: list[Any], kept: store.Store, out: Path, args: argparse.Namespace
) -> dict[str, Any]:
    from semcom_gym.benchmarks import fading_board, leaderboard, pictures, speed

    how = {"chunk": args.chunk, "single": args.single}
    work = [each for entry in entries for each in leaderboard.needed(*entry, **how)]
    work += [each for entry in fading for each in fading_board.needed(*entry, args.single)]
    kept.cells(work, "benchmark")
    boards = [leaderboard.leaderboard(task, competitors, kept, **how) for task, competitors in entries]
    lines = summary.summary(boards) if len(boards) > 1 else []
    boards += [fading_board.board(*entry, kept, args.single) for entry in fading]
    pages = [*map(table.markdown, boards), *([summary.markdown(lines)] if lines else [])]
    made = {"command": args.line, "machine": speed.machine(None)}
    files = [out / "leaderboard.md", out / "leaderboard.csv", out / "leaderboard.json", out / "losses.csv"]
    store.write_atomically(files[0], "# Leaderboard\n\n" + "\n".join(pages))
    store.write_atomically(files[1], table.csv_text(boards))
    store.write_atomically(files[2], table.json_text(boards, made))
    store.write_atomically(files[3], table.losses_csv(boards))
    for board in boards:
        name = board.task.replace(" ", "_").replace("/", "-")
        files.append(pictures.scores(board, out / f"{name}_scores.png"))
        files.append(pictures.loss_against_time(board, out / f"{name}_loss_time.png"))
        files.append(pictures.profile(board, out / f"{name}_profile.png"))
    return {"leaderboards": boards, "summary": lines, "files": [str(file) for file in files]}


def _show_boards(found: dict[str, Any]) -> str:
    files = "\n".join(["written:", *found["files"]])
    lines = [summary.text(found["summary"])] if found["summary"] else []
    return "\n\n".join([*map(table.text, found["leaderboards"]), *lines, files])


def _prove(tasks: list[protocol.Task], kept: store.Store) -> dict[str, Any]:
    from semcom_gym.benchmarks import certificates

    kept.cells([work for task in tasks for work in certificates.proofs(task)], "proving bounds")
    rows = []
    for task in tasks:
        file = certificates.ship(task, kept)
        gap = certificates.shipped(task).gap  # read back
        rows.append({"task": task.label, "n": len(gap), "mean": gap.mean(), "largest": gap.max(), "file": str(file)})
    return {"proofs": rows}


def _show_proofs(found: dict[str, Any]) -> str:
    rows = [
        [row["task"], str(row["n"]), f"{100 * row['mean']:.4f}", f"{100 * row['largest']:.4f}", row["file"]]
        for row in found["proofs"]
    ]
    return table.aligned(["bounds of", "n", "mean gap %", "largest gap %", "file"], rows)


# --- figures -------------------------------------------------------------------------------------------------------


def _figures(args: argparse.Namespace) -> Job:
    validate.choice("paper", args.paper, FIGURES)
    for module in ("matplotlib", "tqdm", "cvxpy"):
        baselines.solution.require(module, "figures")
    paper = importlib.import_module(f"semcom_gym.benchmarks.figures.{args.paper}")
    names = ("success", "preset", "slow", "bound", "tables", "bpg", "djscc")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    validate.keywords(f"figures {args.paper}", given, paper.OPTIONS)
    options = paper.OPTIONS | given
    chosen = paper.figures(**options, quick=args.quick)
    if args.only is not None:
        numbers = [_number(figure.name) for figure in chosen]
        for number in args.only:
            validate.choice("figure", number, dict.fromkeys(numbers))
        chosen = [figure for figure, number in zip(chosen, numbers, strict=True) if number in args.only]
    n = (min(2, paper.INSTANCES) if args.quick else paper.INSTANCES) if args.instances is None else args.instances
    validate.integer("--instances", n)
    out = store.make_folder(args.out or f"results/figures/{args.paper}")
    kept = open_cells(args)
    return Job(lambda: _run_figures(paper, args.paper, options, chosen, n, kept, out), _show_figures, kept.kept)


def _number(name: str) -> int:
    """The number in the paper of a figure, or of the one that it is a part of: 7 of ``figure_07a_L256``."""
    return int(name.removeprefix("figure_")[:2])


def _run_figures(
    paper: Any, name: str, options: dict[str, Any], chosen: list[Any], n: int, kept: store.Store, out: Path
) -> dict[str, Any]:
    from semcom_gym.benchmarks.figures import sweep

    found = sweep.compute(name, chosen, n, kept)
    files = sweep.write(chosen, found, out)
    claims = paper.claims(found)
    notes = f"{paper.about(n, **options)}, code {store.code_version('envs', 'baselines')}."
    text = sweep.claims_markdown(f"{name}: the paper's claims and our data", claims, notes, paper.appendix(found))
    page = out / "claims.md"
    store.write_atomically(page, text)
    return {"claims": claims, "files": [str(file) for file in (*files, page)], "n": n, **options}


def _show_figures(found: dict[str, Any]) -> str:
    rows = [[claim.figure, claim.verdict, claim.paper, claim.ours] for claim in found["claims"]]
    lines = [f"{figure:>8}  {verdict:<6}  {paper}: {ours}" for figure, verdict, paper, ours in rows]
    return "\n".join([*lines, "", "written:", *found["files"]])
