"""The figures of the papers, drawn again from their CSV files, and what the papers' claims came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from semcom_gym import envs
from semcom_gym.benchmarks.report.files import Figure, Line, Paper
from semcom_gym.benchmarks.report.markdown import render
from semcom_gym.benchmarks.report.markup import Markup, join, slug, tag
from semcom_gym.benchmarks.report.plot import Chart, axis, figure, legend, spreads, style

Link = Callable[[str], str]


def section(papers: Sequence[Paper], link: Link) -> Markup:
    """A part per folder of figures."""
    return join((_paper(paper, link) for paper in ordered(papers)), "\n")


def ordered(papers: Sequence[Paper]) -> list[Paper]:
    """The folders in the order of the problems that their names begin with; others last."""
    names = [*envs.NAMES, ""]
    return sorted(papers, key=lambda paper: next(k for k, name in enumerate(names) if paper.name.startswith(name)))


def _paper(paper: Paper, link: Link) -> Markup:
    charts = tag("div", *(_figure(found, link) for found in paper.figures), class_="charts")
    folder = PurePosixPath(paper.file).parent
    text = paper.claims.partition("\n")[2]  # its title says what the heading here says
    claims = render(text, lambda target: link(str(folder / target)), level=4)
    summary = tag("summary", tag("h4", "The paper's claims beside our data"))
    heading = tag("h3", paper.name, id=slug(f"figures {paper.name}"))
    source = tag("p", "By ", tag("code", "semcom-gym figures"), ": ", tag("a", paper.file, href=link(paper.file)))
    return join([heading, source, tag("details", summary, tag("div", claims, class_="body")), charts])


def _figure(found: Figure, link: Link) -> Markup:
    stem = PurePosixPath(found.file).stem
    lines = [line for line in found.lines if any(map(math.isfinite, line.y))]
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for values in (line.y, line.low, line.high, line.printed) for y in values]
    chart = Chart(
        axis(found.x_label, xs, log=spreads(xs), room=0.03), axis(found.y_label, ys, log=spreads(ys)),
        f"{stem}: {found.y_label} against {found.x_label} for {', '.join(line.name for line in lines)}.",
    )  # fmt: skip
    entries = []
    for place, line in enumerate(lines):
        kind = "bound" if line.name == "bound" else style(place)
        _line(chart, line, kind)
        entries.append((line.name, kind, "line"))
    if any(math.isfinite(y) for line in lines for y in line.printed):
        entries.append(("printed in the paper", "ink", "ring"))
    links = [tag("a", "data", href=link(found.file)), " · "]
    links.append(tag("a", "picture", href=link(str(PurePosixPath(found.file).with_suffix(".png")))))
    below = tag("p", _count(found.lines), ". Files: ", *links, class_="links")
    return figure(chart, f"{_name(stem)}: {found.y_label}", legend(entries), below)


def _name(stem: str) -> str:
    """``figure_07a_L256`` as ``Figure 7a, L256``."""
    return f"Figure {stem.removeprefix('figure_').lstrip('0').replace('_', ', ')}"


def _count(lines: Sequence[Line]) -> str:
    """Over how many instances the means are taken."""
    counts = [int(count) for line in lines for count in line.instances]
    low, high = min(counts), max(counts)
    return f"{low} instance{'s' if low > 1 else ''}" if low == high else f"{low} to {high} instances, by line"


def _line(chart: Chart, line: Line, kind: str) -> None:
    if line.name != "bound":
        chart.band(list(zip(line.x, line.low, line.high, strict=True)), kind)
    chart.line(list(zip(line.x, line.y, strict=True)), kind, line.name)
    for x, y in zip(line.x, line.printed, strict=True):
        chart.dot((x, y), kind, f"{line.name}, printed in the paper: {y:g}", shape="ring")
