"""``semcom-gym report``: the result files as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.commands import Job, add
from semcom_gym.benchmarks.errors import UserError


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    report = add(
        commands, "report", _report, "put all results on one HTML page that opens offline",
        "  semcom-gym report --results docs/results --runs runs --out runs/report/index.html\n\n"
        "What the files do not hold is named at the end of the page.",
    )  # fmt: skip
    report.add_argument(
        "--results", default="docs/results", metavar="FOLDER", help="folder of result files (default: %(default)s)"
    )
    report.add_argument(
        "--runs", nargs="+", default=[], metavar="FOLDER",
        help="folders with training runs for the learning curves, beside those among the results",
    )  # fmt: skip
    report.add_argument("--out", default="runs/report/index.html", help="the page (default: %(default)s)")


def _report(args: argparse.Namespace) -> Job:
    from semcom_gym.benchmarks.report import files

    out = Path(args.out)
    if out.is_dir():
        raise UserError(f"--out must name a file, {args.out!r} is a folder")
    folder = Path(args.results)
    results = files.read(folder, [Path(run) for run in args.runs])
    store.make_folder(out.parent)
    return Job(lambda: _run_report(results, folder, out), _show)


def _run_report(results: Any, folder: Path, out: Path) -> dict[str, Any]:
    from semcom_gym.benchmarks.report import page

    text, missing = page.build(results, folder, out)
    store.write_atomically(out, text)
    return {"file": str(out), "bytes": len(text.encode()), "read": len(results.digests), "missing": missing}


def _show(found: dict[str, Any]) -> str:
    lines = [f"missing: {line}" for line in found["missing"]]
    return "\n".join([*lines, f"written: {found['file']} ({found['bytes'] / 1e6:.1f} MB, from {found['read']} files)"])
