"""Where every number of the page comes from: commands, machine, agents' cards, proofs, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from semcom_gym.benchmarks import certificates
from semcom_gym.benchmarks.report.boards import percent, time
from semcom_gym.benchmarks.report.files import Results
from semcom_gym.benchmarks.report.markdown import render
from semcom_gym.benchmarks.report.markup import DASH, Markup, code, facts, join, number, table, tag


def section(results: Results, cards: Sequence[dict[str, Any]], link: Callable[[str], str]) -> Markup:
    """Commands, cards, proofs and files."""
    parts = []
    if results.readme is not None:
        parts.append(tag("h3", "Commands and machine", id="commands"))
        parts.append(render(results.readme[1].partition("\n")[2], link, level=3))
    parts += [tag("h3", "Shipped agents", id="cards"), _cards(cards)] if cards else []
    parts += [tag("h3", "Proofs of the bounds", id="proofs"), _proofs()]
    parts += [tag("h3", "Files that were read", id="files"), _files(results.digests)]
    return join(parts, "\n")


def _cards(cards: Sequence[dict[str, Any]]) -> Markup:
    rows: list[list[Any]] = []
    made: dict[str, list[str]] = {}  # versions of packages -> agents
    for card in cards:
        test = card["scores"].get("test", {})
        rows.append([
            f"{card['env_id']} {card['preset']}, {card['algo']}", number(test.get("mean_score")),
            percent(test["loss"]) if "loss" in test else DASH, f"{card['timesteps']:,}", f"{card['seconds']:.0f} s",
            code(card["command"]), code(card["sha256"][:12]),
        ])  # fmt: skip
        versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
        made.setdefault(versions, []).append(rows[-1][0])
    header = ("agent", "mean score", "loss", "decisions", "trained for", "command", "SHA-256")
    caption = "Agents that come with the package; scores on the test split"
    same = [("all of them", versions) for versions in made] if len(made) == 1 else None
    return join([
        table(header, rows, left=(0, 5, 6), caption=caption),
        facts(same or [("; ".join(names), versions) for versions, names in made.items()]),
    ])  # fmt: skip


def _proofs() -> Markup:
    rows = []
    for path in sorted(certificates.FOLDER.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        seconds = [value for value in data["seconds"] if value is not None]
        rows.append([
            code(f"benchmarks/bounds/{path.name}"), data["n"], time(sum(seconds) / len(seconds)),
            code(data["code"]), code(data["command"]),
        ])  # fmt: skip
    header = ("file", "instances", "time of a proof", "code", "command")
    return table(header, rows, left=(0, 3, 4), caption="Bounds of the test split that come with the package")


def _files(digests: dict[str, str]) -> Markup:
    rows = [[code(name), code(digest)] for name, digest in sorted(digests.items())]
    files = table(("file", "SHA-256, first 12 digits"), rows, left=(0, 1), caption="Files that were read")
    return tag("details", tag("summary", tag("h4", f"{len(rows)} files")), tag("div", files, class_="body"))
