"""The part of Markdown that result pages use, as HTML: headings, paragraphs, lists, tables, code, bold, links."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from semcom_gym.benchmarks.report.markup import Markup, join, table, tag
from semcom_gym.benchmarks.report.markup import code as markup_code

SPANS = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|#")  # an address, or a place in the Markdown page itself


def render(text: str, link: Callable[[str], str], level: int = 3) -> Markup:
    """``text`` as HTML. link: the path of a file as the page needs it; a link to anything else becomes plain text.
    level: of its topmost heading.
    """
    blocks = re.split(r"\n\s*\n", text.strip())
    return join((_block(block.strip("\n"), link, level) for block in blocks), "\n")


def _block(block: str, link: Callable[[str], str], level: int) -> Markup:
    heading = re.fullmatch(r"(#+) (.*)", block)
    if heading:
        return tag(f"h{min(level + len(heading[1]) - 1, 6)}", spans(heading[2], link))
    if block.startswith("|"):
        header, _, *rows = [_cells(line) for line in block.splitlines()]
        shown = [[spans(cell, link) for cell in row] for row in rows]
        return table([spans(cell, link) for cell in header], shown, left=range(len(header)))
    if block.startswith("* "):
        entries = re.split(r"^\* ", block, flags=re.MULTILINE)[1:]
        return tag("ul", *(tag("li", spans(" ".join(entry.split()), link)) for entry in entries))
    return tag("p", spans(" ".join(block.split()), link))


def _cells(line: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return [part.strip().replace("\\|", "|") for part in parts]


def spans(text: str, link: Callable[[str], str]) -> Markup:
    """One line of Markdown: code, bold and links; the rest is escaped."""
    parts, end = [], 0
    for found in SPANS.finditer(text):
        parts.append(html.escape(text[end : found.start()]))
        end = found.end()
        code, bold, label, target = found.groups()
        if code is not None:
            parts.append(markup_code(code))
        elif bold is not None:
            parts.append(tag("strong", bold))
        else:
            parts.append(html.escape(label) if ELSEWHERE.match(target) else tag("a", label, href=link(target)))
    return Markup("".join([*parts, html.escape(text[end:])]))
