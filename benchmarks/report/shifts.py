"""Generalisation: agents on problems that they were not trained on, a table per id."""

from __future__ import annotations

from collections.abc import Sequence

from semcom_gym.benchmarks import generalise
from semcom_gym.benchmarks.report.markup import Markup, code, join, slug, table, tag

Found = tuple[str, Sequence[generalise.Row]]
"""A file, and its rows."""


def titles(found: Sequence[Found]) -> list[tuple[str, str]]:
    """Title and anchor of every table."""
    return [
        (page.title, slug(f"shifts {file} {page.title}")) for file, rows in found for page in generalise.pages(rows)
    ]


def section(found: Sequence[Found]) -> Markup:
    """A table per file and id."""
    anchors = iter(titles(found))
    parts = []
    for file, rows in found:
        for page in generalise.pages(rows):
            title, anchor = next(anchors)
            parts.append(tag("h3", title, id=anchor))
            caption = f"{title}: what differs from training, and what it costs"
            parts.append(table(page.header, page.cells, caption=caption))
            parts.append(tag("p", page.notes.replace("`", ""), " File: ", code(file), "."))
    return join(parts, "\n")
