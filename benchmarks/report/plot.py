"""Small charts as SVG, in the colours of the page, drawn at the width of a phone and scaled up on wider screens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from semcom_gym.benchmarks.report.markup import MINUS, Markup, join, tag

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 40
COLOURS, DASHES = 8, 3
LETTER, LINE = 6.1, 12.0  # size of a letter of a label, in units of the chart
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Axis:
    """What an axis says and reaches. names: of the places 0, 1, ... instead of numbers; whole: only whole numbers."""

    label: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] | None = None
    whole: bool = False

    def place(self, value: float) -> float:
        """Where a value is, 0 to 1 between the ends."""
        low, high, at = (_log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their labels."""
        if self.names is not None:
            return [(float(place), name) for place, name in enumerate(self.names)]
        values = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high, self.whole)
        return [(value, _short(value)) for value in values]


def axis(label: str, values: Sequence[float], *, log: bool = False, room: float = 0.06) -> Axis:
    """An axis that reaches a little beyond the finite values (the positive ones, where it is logarithmic)."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        spread = max(_log(high) - _log(low), 0.3)
        return Axis(label, low / 10 ** (room * spread), high * 10 ** (room * spread), log=True)
    spread = (high - low) or abs(high) or 1.0
    whole = all(float(value).is_integer() for value in finite)
    return Axis(label, low - room * spread, high + room * spread, whole=whole)


def spreads(values: Sequence[float], decades: float = 1.5) -> bool:
    """Whether positive values spread over so many decades that they ask for a logarithmic axis."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and _log(max(finite) / min(finite)) >= decades


def style(index: int) -> str:
    """The class of the index-th series: a colour and, past the last, a dash."""
    return f"c{index % COLOURS} d{index // COLOURS % DASHES}"


class Chart:
    """Axes, and what is drawn between them. alt: what the chart shows, for those who do not see it."""

    def __init__(self, x: Axis, y: Axis, alt: str, *, height: int = HEIGHT) -> None:
        self.x, self.y, self.alt, self.height = x, y, alt, height
        self.inner_width, self.inner_height = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM
        self.marks: list[Markup] = []
        self.taken: list[tuple[float, float, float, float]] = []

    def at(self, point: Point) -> Point:
        """Place of a point inside the frame."""
        return self.inner_width * self.x.place(point[0]), self.inner_height * (1.0 - self.y.place(point[1]))

    def line(self, points: Sequence[Point], kind: str, title: str | None = None) -> None:
        """A line through the finite points; it breaks at others."""
        path, pen = "", "M"
        for point in points:
            if not self._shown(point):
                pen = "M"
                continue
            x, y = self.at(point)
            path += f"{pen}{x:.1f} {y:.1f}"
            pen = "L"
        if path:
            self.marks.append(tag("path", _title(title), d=path, class_=f"line {kind}"))

    def band(self, points: Sequence[tuple[float, float, float]], kind: str) -> None:
        """An area between low and high, (x, low, high) each."""
        shown = [p for p in points if self._shown((p[0], p[1])) and self._shown((p[0], p[2]))]
        edge = [self.at((x, low)) for x, low, _ in shown] + [self.at((x, high)) for x, _, high in reversed(shown)]
        if len(shown) > 1:
            self.marks.append(
                tag("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in edge), class_=f"band {kind}")
            )

    def dot(self, point: Point, kind: str, title: str | None = None, *, shape: str = "circle") -> None:
        """A marker: circle, diamond or ring."""
        if not self._shown(point):
            return
        x, y = self.at(point)
        if shape == "diamond":
            d = f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"
            self.marks.append(tag("path", _title(title), d=d, class_=f"dot {kind}"))
        else:
            kind = f"{'ring' if shape == 'ring' else 'dot'} {kind}"
            self.marks.append(tag("circle", _title(title), cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_=kind))
        self.taken.append((x - 5, y - 5, x + 5, y + 5))

    def bar(self, place: float, width: float, value: float, kind: str, title: str | None = None) -> None:
        """A bar from the bottom of the frame up to a value."""
        if not self._shown((place, value)):
            return
        x, y = self.at((place - width / 2, value))
        right = self.at((place + width / 2, value))[0]
        height = max(self.inner_height - y, 0.0)
        self.marks.append(
            tag("rect", _title(title), x=f"{x:.1f}", y=f"{y:.1f}", width=f"{right - x:.1f}", height=f"{height:.1f}",
                class_=f"bar {kind}")
        )  # fmt: skip

    def label(self, point: Point, *texts: str) -> None:
        """The first of ``texts`` that fits beside a point, on any side; none where none does."""
        x, y = self.at(point)
        for text in texts:
            width = LETTER * len(text)
            for left, middle in ((x + 8, y), (x - 8 - width, y), (x - width / 2, y - 13), (x - width / 2, y + 13)):
                box = (left, middle - LINE / 2, left + width, middle + LINE / 2)
                if self._free(box):
                    self.taken.append(box)
                    self.marks.append(tag("text", text, x=f"{left:.1f}", y=f"{middle + 4:.1f}", class_="label"))
                    return

    def rule(self, value: float, kind: str = "rule", title: str | None = None) -> None:
        """A horizontal line across the frame."""
        self.line([(self.x.low, value), (self.x.high, value)], kind, title)

    def svg(self) -> Markup:
        """The chart."""
        # an svg in an svg cuts off what leaves it
        frame = tag("svg", *self.marks, x=LEFT, y=TOP, width=self.inner_width, height=self.inner_height)
        size = f"0 0 {WIDTH} {self.height}"
        return tag("svg", self._grid(), frame, viewBox=size, role="img", aria_label=self.alt)

    def _shown(self, point: Point) -> bool:
        return all(map(math.isfinite, point)) and (point[0] > 0 or not self.x.log) and (point[1] > 0 or not self.y.log)

    def _free(self, box: tuple[float, float, float, float]) -> bool:
        left, top, right, bottom = box
        inside = left >= 0 and top >= 0 and right <= self.inner_width and bottom <= self.inner_height
        return inside and all(right < a or left > c or bottom < b or top > d for a, b, c, d in self.taken)

    def _grid(self) -> Markup:
        parts = []
        floor, end = TOP + self.inner_height, LEFT + self.inner_width
        for value, name in self.y.ticks():
            y = TOP + self.at((self.x.low, value))[1]
            parts.append(tag("line", x1=LEFT, x2=end, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
            parts.append(tag("text", name, x=LEFT - 6, y=f"{y + 4:.1f}", class_="tick", text_anchor="end"))
        for value, name in _thin(self.x.ticks(), lambda value: self.at((value, self.y.low))[0]):
            x = LEFT + self.at((value, self.y.low))[0]
            if self.x.names is None:
                parts.append(tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP, y2=floor, class_="grid"))
            parts.append(tag("text", name, x=f"{x:.1f}", y=floor + 15, class_="tick", text_anchor="middle"))
        parts.append(tag("line", x1=LEFT, x2=end, y1=floor, y2=floor, class_="axis"))
        middle = LEFT + self.inner_width / 2
        parts.append(tag("text", self.x.label, x=middle, y=self.height - 6, class_="name", text_anchor="middle"))
        turn = f"translate(11 {TOP + self.inner_height / 2}) rotate(-90)"
        parts.append(tag("text", self.y.label, transform=turn, class_="name", text_anchor="middle"))
        return join(parts)


def swatch(kind: str, shape: str = "line") -> Markup:
    """A sample of a line, a dot or a bar, for a legend or a table."""
    marks = {
        "line": tag("path", d="M1 6H21", class_=f"line {kind}"),
        "dot": tag("circle", cx=11, cy=6, r=4, class_=f"dot {kind}"),
        "diamond": tag("path", d="M11 0.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z", class_=f"dot {kind}"),
        "ring": tag("circle", cx=11, cy=6, r=4, class_=f"ring {kind}"),
        "bar": tag("rect", x=5, y=1, width=12, height=10, class_=f"bar {kind}"),
    }
    return tag("svg", marks[shape], viewBox="0 0 22 12", class_="swatch", aria_hidden="true")


def legend(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """Names with their samples, (name, class, shape) each."""
    return tag("ul", *(tag("li", swatch(kind, shape), name) for name, kind, shape in entries), class_="legend")


def figure(chart: Chart, caption: Any, *below: Any) -> Markup:
    """A chart with its caption above and, for example, a legend below."""
    return tag("figure", tag("figcaption", caption), chart.svg(), *below, class_="chart")


def _title(title: str | None) -> Markup:
    return tag("title", title) if title else Markup("")


def _thin(ticks: list[tuple[float, str]], place: Any) -> list[tuple[float, str]]:
    """Ticks without those whose labels would touch the label before."""
    kept: list[tuple[float, str]] = []
    end = -math.inf
    for value, name in ticks:
        half = LETTER * len(name) / 2 + 2
        if place(value) - half >= end:
            kept.append((value, name))
            end = place(value) + half
    return kept


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def _short(value: float) -> str:
    """A number as the label of a tick."""
    size, unit = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e4 else (1.0, "")
    return f"{value / size:.6g}{unit}".replace("-", MINUS)


def _linear_ticks(low: float, high: float, whole: bool) -> list[float]:
    raw = max((high - low) / 5, 1.0) if whole else (high - low) / 5
    size = 10.0 ** math.floor(_log(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.ceil(_log(low) - 1e-9), math.floor(_log(high) + 1e-9)
    stride = max(1, math.ceil((last - first) / 6))
    if last - first >= 2:
        return [10.0**k for k in range(first, last + 1, stride)]
    every = [factor * 10.0**k for k in range(first - 1, last + 1) for factor in (1, 2, 5)]
    return [value for value in every if low <= value <= high]
