"""The page: sections, table of contents, what is missing, style; one file that loads nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from semcom_gym import __version__, envs
from semcom_gym.benchmarks.report import boards, curves, decisions, learning, papers, shifts, sources, speeds
from semcom_gym.benchmarks.report.files import Results
from semcom_gym.benchmarks.report.markup import MINUS, Markup, join, slug, tag

STYLE = Path(__file__).parent / "style.css"
Section = tuple[str, str, str, Markup, list[tuple[str, str]]]
"""Anchor, title, introduction, content, and the entries (text, anchor) of the table of contents below it."""


def build(results: Results, folder: Path, out: Path) -> tuple[str, list[str]]:
    """The text of the page, and what it lacks, a line each.

    folder: of the results; out: where the page will lie, which decides its links to the files.
    """

    def link(target: str) -> str:
        return quote(Path(os.path.relpath(folder / target, out.parent)).as_posix(), safe="/#.")

    cards, without = _cards()
    missing = [*without, *_missing(results)]
    sections = [section for section in _sections(results, cards, link) if section[3]]
    sections.append(("missing", "What is missing", "", _list(missing), []))
    content = [_header(results), _contents(sections), *(_section(*section[:4]) for section in sections)]
    head = tag(
        "head", tag("meta", charset="utf-8"), tag("title", "semcom-gym: results"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )  # fmt: skip
    body = tag("body", tag("main", join(content, "\n")))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n", missing


def _cards() -> tuple[list[dict[str, Any]], list[str]]:
    """The cards of the shipped agents of one decision; without the packages they need, none and why."""
    try:
        from semcom_gym import agents
    except ModuleNotFoundError as error:
        return [], [f"decisions side by side and agents' cards: {error}"]
    ids = list(envs.IDS)
    cards = [card for card in agents.shipped() if card["env_id"] in ids]
    return sorted(cards, key=lambda card: ids.index(card["env_id"])), []


def _sections(results: Results, cards: list[dict[str, Any]], link: Callable[[str], str]) -> list[Section]:
    below = results.boards
    return [
        (
            "overview", "At a glance",
            f"Score: 1 is the certified optimum, 0 what a sensible engineer does without optimising, {MINUS}1 "
            "an infeasible decision; interquartile means. Loss: mean distance to the bound. Time: per decision where "
            "all are decided in one batch, and alone, where there is one instance in a call.",
            boards.overview(below) if below else Markup(""), [],
        ),
        (
            "leaderboards", "Leaderboards", "Every method decides on the same test instances. Open a row to see it.",
            boards.section(below), [(name, slug(name)) for name in boards.groups(below)],
        ),
        (
            "shifts", "Generalisation",
            "Agents on other numbers of users, budgets, channels and curves than they were trained on, beside solvers "
            "that solve each problem afresh.",
            shifts.section(results.shifts), shifts.titles(results.shifts),
        ),
        (
            "decisions", "Solver and agent, side by side",
            "Both decide on the same cell, the first of the test split; computed when this page was made.",
            decisions.section(cards),
            [(decisions.name(card), slug(decisions.name(card))) for card in cards],
        ),
        (
            "learning", "Learning curves", "Means over the validation split; the test split is never touched.",
            learning.section(results.runs),
            [(task, slug(f"learning {task}")) for task in learning.tasks(results.runs)],
        ),
        (
            "curves", "Curves", "What the physics takes from trained networks, each with its source.",
            curves.section(results.curves),
            [(name, slug(f"curves {name}")) for name in dict.fromkeys(curve.problem for _, curve in results.curves)],
        ),
        (
            "figures", "The papers' figures", "Lines are means, areas 95 % intervals, rings what a paper prints.",
            papers.section(results.papers, link),
            [(paper.name, slug(f"figures {paper.name}")) for paper in papers.ordered(results.papers)],
        ),
        (
            "speed", "Speed", "", speeds.section(*results.speed) if results.speed else Markup(""), [],
        ),
        (
            "sources", "Where the numbers come from", "", sources.section(results, cards, link), [],
        ),
    ]  # fmt: skip


def _missing(results: Results) -> list[str]:
    found = []
    if not results.boards:
        found.append("leaderboards: no leaderboard.json (semcom-gym benchmark writes it)")
    without = [entry.board.task for entry in results.boards if all(row.losses is None for row in entry.board.rows)]
    if without:
        found.append(f"performance profiles of {', '.join(without)}: no losses.csv (semcom-gym benchmark writes it)")
    unmade = {entry.file for entry in results.boards if entry.made is None}
    if unmade:
        found.append(f"command and machine in {len(unmade)} leaderboard files: older ones do not hold them")
    if not results.shifts:
        found.append("generalisation: no generalise.json (semcom-gym generalise writes it)")
    if not results.runs:
        found.append("learning curves: no run.json (semcom-gym train writes it; name its folder with --runs)")
    if not results.papers:
        found.append("the papers' figures: no claims.md (semcom-gym figures writes it)")
    if results.speed is None:
        found.append("speed: no speed.json (semcom-gym speed writes it)")
    if results.readme is None:
        found.append("commands and machine: no README.md among the results")
    return found


def _header(results: Results) -> Markup:
    counts = [
        (len(results.boards), "leaderboards"), (len(results.curves), "curves"), (len(results.runs), "training runs"),
        (sum(len(paper.figures) for paper in results.papers), "figures"),
    ]  # fmt: skip
    shown = ", ".join(f"{count} {name}" for count, name in counts if count)
    lead = "Resource allocation for semantic communication, scored against certified optima."
    about = f"{shown or 'No results'}. Made by semcom-gym {__version__}; this page loads nothing from anywhere."
    return tag("header", tag("h1", "semcom-gym: results"), tag("p", lead, class_="lead"), tag("p", about))


def _contents(sections: list[Section]) -> Markup:
    entries = []
    for anchor, title, _, _, inner in sections:
        links = [tag("a", text, href=f"#{target}") for text, target in inner]
        below = tag("span", join(links, " "), class_="inner") if links else ""
        entries.append(tag("li", tag("a", title, href=f"#{anchor}"), below))
    return tag("nav", tag("h2", "Contents"), tag("ol", *entries), aria_label="Contents")


def _section(anchor: str, title: str, introduction: str, content: Markup) -> Markup:
    intro = tag("p", introduction, class_="intro") if introduction else ""
    return tag("section", tag("h2", title, id=anchor), intro, content)


def _list(lines: list[str]) -> Markup:
    if not lines:
        return tag("p", "Nothing.")
    return tag("ul", *(tag("li", line) for line in lines))
