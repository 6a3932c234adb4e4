"""HTML that escapes itself: everything that is not :class:`Markup` already is text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

LONG = 48  # letters of a code that stay on one line in a table
VOID = ("br", "hr", "img", "meta")
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: Any) -> Markup:
    """``value`` as HTML: escaped, unless it is Markup."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Iterable[Any], between: str = "") -> Markup:
    """The parts one after the other, ``between`` as text between them."""
    return Markup(text(between).join(map(text, parts)))


def tag(name: str, /, *content: Any, **attributes: Any) -> Markup:
    """An element. ``class_`` stands for class, ``aria_label`` for aria-label; what is None or False is left out."""
    shown = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        shown += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    if name in VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(content)}</{name}>")


def table(
    header: Sequence[Any], rows: Sequence[Sequence[Any]], *, left: Sequence[int] = (0,), caption: str | None = None
) -> Markup:
    """A table in a box that scrolls by itself; columns in ``left`` are text, the others numbers."""

    def cells(kind: str, row: Sequence[Any]) -> Markup:
        found = []
        for place, value in enumerate(row):
            head = kind == "th" or place == 0
            scope = ("col" if kind == "th" else "row") if head else None
            name = "th" if head else "td"
            found.append(tag(name, value, scope=scope, class_=None if place in left else "number"))
        return tag("tr", *found)

    title = tag("p", caption, class_="caption") if caption else ""
    body = tag("tbody", *(cells("td", row) for row in rows))
    inner = tag("table", tag("thead", cells("th", header)), body)
    box = tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption or "table")
    return tag("div", title, box, class_="table")


def code(value: str) -> Markup:
    """A name of a file, a hash or a command, which may be so long that it must break."""
    return tag("code", value, class_="long" if len(value) > LONG else None)


def facts(pairs: Iterable[tuple[Any, Any]]) -> Markup:
    """Names and values, one below the other."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs))


def number(value: float | None, digits: int = 4) -> str:
    """A fixed number of digits; a dash where there is no number."""
    if value is None or value != value:
        return DASH
    return f"{value:.{digits}f}".replace("-", MINUS)


def slug(value: str) -> str:
    """``value`` as the name of an anchor."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in value.lower())
    return "-".join(part for part in kept.split("-") if part)
