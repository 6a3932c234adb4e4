"""Pages read back as a browser would, and small results to make them of."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import numpy as np

from semcom_gym.benchmarks import leaderboard
from semcom_gym.benchmarks.stats import Estimate

EVIL = "<script>alert(\"1\")</script> & 'x' | y"
VOID = {"br", "hr", "img", "meta"}


class Page(HTMLParser):
    """Tags in order, checked to be nested; text, attributes and table rows."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.region = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), attrs
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if found.get("role") == "region":
            self.region = found["aria-label"]
        if tag == "tr":
            self.tables.setdefault(self.region, []).append([])
        if tag in ("td", "th"):
            self.tables[self.region][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[self.region][-1][-1] += data

    def all(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found in self.tags if attribute in found]


def estimate(value):
    return Estimate(value, value - 0.01, value + 0.01)


def row(method, kind, value, losses):
    losses = np.array(losses, float)
    return leaderboard.Row(
        method, kind, estimate(value), estimate(value), 0.02, 0.9, 1e-3, losses.size, estimate(0.0), losses
    )


def board(task="CRRA-v0 default", rows=None):
    rows = rows or (
        row("fast", "solver", 0.99, [[0.001, 0.01, 0.1, math.inf]]),
        row(EVIL, "agent", -3.0, [[0.2, 0.3, 0.4, math.nan], [0.5, 0.6, 0.7, math.nan]]),
    )
    return leaderboard.Leaderboard(
        task, "SemCom/CRRA-v0", "default", "test", 4, 0.25, "fra", 1e-4, "0+abc", tuple(rows)
    )


RUN = {
    "env_id": "SemCom/CRRA-v0", "preset": "default", "overrides": {"num_users": EVIL}, "algo": "ppo", "seed": 3,
    "command": "semcom-gym train", "versions": {}, "seconds": 2.0, "timesteps": 20, "finished": False,
    "best": {"timesteps": 20, "seconds": 2.0, "reward": 2.0, "gap": 0.01, "score": 0.5},
    "curve": [{"timesteps": t, "seconds": t / 10, "reward": 1.0, "gap": 0.1 / (t + 1)} for t in (0, 10, 20)],
}  # fmt: skip
SHIFTED = {
    "env": "SemCom/CRRA-v0", "preset": "default", "shift": "5 users", "method": EVIL, "kind": "agent", "loss": 0.125,
    "score": {"value": 0.5, "low": 0.4, "high": 0.6}, "mean_score": {"value": 0.5, "low": 0.4, "high": 0.6},
    "feasible": 0.75, "n": 4, "left_out": 0.0, "certified_gap": 0.001,
}  # fmt: skip
FIGURE = "line,x [W],y,low,high,instances,infeasible,printed\n" + "\n".join(
    [f'"{EVIL.replace(chr(34), chr(34) * 2)}",1,2,1.5,2.5,30,0,2.2', "bound,1,3,nan,nan,20,0,"]
)
