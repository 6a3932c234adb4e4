"""The HTML report: self-contained, well-formed, complete, escaped, the same twice; damaged files in one line."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
from report_pages import EVIL, FIGURE, RUN, SHIFTED, Page, board

from semcom_gym import agents, baselines, envs
from semcom_gym.benchmarks import certificates, cli, protocol, table
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.benchmarks.report import files, page

ROOT = Path(__file__).parent.parent
STORED = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The page of the stored results, as the command makes it."""
    out = tmp_path_factory.mktemp("report") / "index.html"
    assert cli.main(["report", "--results", str(STORED), "--out", str(out)]) == 0
    return out, Page(out.read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    """A small folder of results."""
    root = tmp_path / "results"
    (root / "a").mkdir(parents=True)
    (root / "figures" / "crra").mkdir(parents=True)
    (root / "run").mkdir()
    made = {"command": f"semcom-gym benchmark {EVIL}", "machine": {"processor": "P", "versions": {"numpy": "2"}}}
    (root / "a" / "leaderboard.json").write_text(table.json_text([board()], made))
    (root / "a" / "losses.csv").write_text(table.losses_csv([board()]))
    (root / "run" / "run.json").write_text(json.dumps(RUN))
    (root / "generalise.json").write_text(json.dumps({"made": {}, "rows": [SHIFTED]}))
    (root / "figures" / "crra" / "claims.md").write_text(f"# t\n\n| a | b |\n|---|---|\n| 1 \\| 2 | {EVIL[:-4]} |\n")
    (root / "figures" / "crra" / "figure_04.csv").write_text(FIGURE)
    (root / "speed.json").write_text((STORED / "speed.json").read_text())
    (root / "README.md").write_text(
        "# Results\n\nMade by `x`, see [there](a/leaderboard.json) and [out](https://x.y/z).\n"
    )
    shutil.copy(ROOT / "envs" / "training" / "curves" / "deepjscc_small.json", root / "mine.json")
    (root / "other.json").write_text('{"key": 1}')
    return root


@pytest.fixture
def quick(monkeypatch):
    """Pages without the decisions, which take seconds."""
    monkeypatch.setattr(page, "_cards", lambda: ([], []))


def build(folder):
    return page.build(files.read(folder, []), folder, folder.parent / "index.html")


# --- the page as a file ----------------------------------------------------------------------------------------------


def test_page_is_self_contained(stored):
    out, found = stored
    tags = {name for name, _ in found.tags}
    assert not tags & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    for attribute in ("src", "srcset", "data", "poster", "action", "background", "xlink:href"):
        assert found.all(attribute) == []
    assert not [name for _, found_ in found.tags for name in found_ if name.startswith("on")]
    text = out.read_text(encoding="utf-8")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert style
    assert "url(" not in style
    assert "@import" not in style


def test_links_lead_somewhere(stored):
    out, found = stored
    names = found.all("id")
    assert len(names) == len(set(names))
    targets = found.all("href")
    assert len(targets) > 100
    for target in targets:
        assert not re.match(r"[a-z]+:|//", target), target
        if target.startswith("#"):
            assert target[1:] in names, target
        else:
            assert (out.parent / target.partition("#")[0]).exists(), target


def test_headings_descend_one_at_a_time(stored):
    levels = [int(name[1]) for name, _ in stored[1].tags if re.fullmatch("h[1-6]", name)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_chart_says_what_it_shows(stored):
    labels = [found.get("aria-label", "") for name, found in stored[1].tags if name == "svg" and "role" in found]
    assert len(labels) > 100
    assert all(len(label) > 20 for label in labels)
    hidden = [found for name, found in stored[1].tags if name == "svg" and "role" not in found and "x" not in found]
    assert all(found.get("aria-hidden") == "true" for found in hidden)


def test_page_has_every_row_of_every_leaderboard(stored):
    tables = stored[1].tables
    count = 0
    for path in STORED.rglob("leaderboard.json"):
        for entry in json.loads(path.read_text())["leaderboards"]:
            many = "episodes" if entry.get("rule") else "instances"
            shown = tables[f"{entry['task']}: {entry['n']} {entry['split']} {many}, best first"][1:]
            assert [cells[1] for cells in shown] == [found["method"] for found in entry["rows"]]
            for cells, found in zip(shown, entry["rows"], strict=True):
                assert cells[2] == found["kind"]
                assert float(cells[3].replace("\N{MINUS SIGN}", "-")) == pytest.approx(
                    found["score"]["value"], abs=5e-5
                )
                assert cells[8] == f"{100 * found['feasible']:.0f} %"
                count += 1
    assert count > 200


def test_page_has_every_curve_run_and_figure(stored):
    words = set(stored[1].words)
    for problem in envs.NAMES:
        assert words >= {path.stem for path in (ROOT / "envs" / problem / "curves").glob("*.json")}
    captions = " ".join(stored[1].words)
    for path in STORED.rglob("figure_*.csv"):
        assert f"Figure {path.stem[7:].lstrip('0').replace('_', ', ')}: " in captions
    commands = {cells[5] for name, rows in stored[1].tables.items() if "Training runs" in name for cells in rows}
    for path in STORED.rglob("run.json"):
        assert json.loads(path.read_text())["command"] in commands


def test_decisions_are_those_of_the_solver_and_the_agent(stored):
    task = protocol.task("SemCom/CRRA-v0", n=1)
    solved = baselines.solve("crra", task.params, task.instance, "fast").objective[0]
    model = agents.load("SemCom/CRRA-v0")
    played = agents.allocate(model, task.problem, task.params, task.instance)
    reached = task.problem.evaluate(task.params, task.instance, played).objective[0]
    rows = stored[1].tables[f"CRRA-v0 default, apg, the first test instance: {task.problem.objective}"][1:]
    bound = certificates.shipped(task).bound[0]
    assert [float(cells[1]) for cells in rows] == pytest.approx([solved, reached, bound], rel=1e-5)
    parts = [name for name in stored[1].tables if "the first test instance" in name]
    assert len(parts) == sum(card["env_id"] in envs.IDS for card in agents.shipped())


# --- small results ---------------------------------------------------------------------------------------------------


def test_names_are_escaped(folder, quick):
    text, _ = build(folder)
    found = Page(text)
    assert "script" not in {name for name, _ in found.tags}
    shown = found.tables["CRRA-v0 default: 4 test instances, best first"]
    assert shown[2][1] == EVIL
    assert found.words.count(EVIL) >= 3  # in the overview, the table and the legend of the figure
    assert f"semcom-gym benchmark {EVIL}" in found.words
    assert ["1 | 2", EVIL[:-4]] in [cells for rows in found.tables.values() for cells in rows]


def test_page_has_the_shifts(folder, quick):
    text, _ = build(folder)
    shown = Page(text).tables["CRRA-v0 default: what differs from training, and what it costs"]
    assert shown[0] == ["shift", f"{EVIL}: loss %", f"{EVIL}: score", "bound's own %"]
    assert shown[1] == ["5 users", "12.500 (25 % infeasible)", "0.500", "0.100"]


def test_same_files_same_page(folder, quick):
    assert build(folder) == build(folder)


def test_whole_page_is_the_same_twice(stored):
    again = page.build(files.read(STORED, []), STORED, stored[0])[0]
    assert again == stored[0].read_text(encoding="utf-8")


def test_small_results_miss_nothing_but_measurements(folder, quick):
    text, missing = build(folder)
    assert missing == []
    assert "not finished" in text
    assert "there</a> and out." in text
    assert "x.y/z" not in text


def test_missing_parts_are_named_and_left_out(tmp_path, monkeypatch, capsys):
    def no_agents():
        return [], ["decisions side by side and agents' cards: agents needs torch"]

    monkeypatch.setattr(page, "_cards", no_agents)
    (tmp_path / "empty").mkdir()
    out = tmp_path / "index.html"
    assert cli.main(["report", "--results", str(tmp_path / "empty"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    text = out.read_text()
    found = Page(text)
    for part in ("leaderboards", "generalisation", "learning curves", "figures", "speed", "README.md", "torch"):
        assert part in printed
        assert part in " ".join(found.words[-20:])
    names = set(found.all("id"))
    assert {"curves", "sources", "missing"} <= names
    assert not {"overview", "leaderboards", "shifts", "decisions", "learning", "figures", "speed"} & names


def test_without_losses_or_origin_the_page_says_so(folder, quick):
    (folder / "a" / "losses.csv").unlink()
    data = json.loads((folder / "a" / "leaderboard.json").read_text())
    del data["made"]
    (folder / "a" / "leaderboard.json").write_text(json.dumps(data))
    text, missing = build(folder)
    assert len(missing) == 2
    assert "performance profiles of CRRA-v0 default" in missing[0]
    assert "Not shown: there is no losses.csv" in text
    assert text.count("not in the file") == 2


# --- damaged files ---------------------------------------------------------------------------------------------------


def changed(path, *keys, value):
    data = json.loads(path.read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(data))


DAMAGE = {
    "a/leaderboard.json": [
        lambda p: p.write_text(p.read_text()[:50]),
        lambda p: p.write_text("[]"),
        lambda p: p.write_bytes(b"\xff\xfe"),
        lambda p: changed(p, "leaderboards", 0, "rows", 0, "loss", value="0.1"),
        lambda p: changed(p, "leaderboards", 0, "rows", 0, "kind", value="other"),
        lambda p: changed(p, "leaderboards", 0, "rows", 0, "score", value=1.0),
        lambda p: changed(p, "leaderboards", 0, "task", value=None),
        lambda p: changed(p, "made", value={}),
    ],
    "a/losses.csv": [
        lambda p: p.write_text(p.read_text().replace("fast", "slow")),
        lambda p: p.write_text(p.read_text().replace("0.001", "much")),
        lambda p: p.write_text("method,task\n"),
        lambda p: p.write_text(""),
    ],
    "generalise.json": [
        lambda p: p.write_text("{}"), lambda p: p.write_text('{"rows": []}'),
        lambda p: changed(p, "rows", 0, "loss", value="much"), lambda p: changed(p, "rows", 0, "shift", value=None),
    ],
    "run/run.json": [lambda p: p.write_text("{}"), lambda p: changed(p, "curve", value=[{"timesteps": 1}]),
                     lambda p: changed(p, "env_id", value="Other-v0")],
    "speed.json": [lambda p: p.write_text("{}"), lambda p: p.write_text("null"),
                   lambda p: changed(p, "rows", 0, "per_second", value=0)],
    "mine.json": [lambda p: p.write_text("{"), lambda p: changed(p, "points", value=[["a"]]),
                  lambda p: changed(p, "problem", value="chess"), lambda p: changed(p, "parameters", value={"a": 1})],
    "figures/crra/figure_04.csv": [lambda p: p.write_text("x,y\n1,2\n"), lambda p: p.write_text(FIGURE.splitlines()[0]),
                                   lambda p: p.write_text(FIGURE + "\nz,1,b,,,1,0,")],
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, found in DAMAGE.items() for damage in found])
def test_damaged_file_is_one_line_with_its_name(folder, capsys, name, damage):
    damage(folder / name)
    out = folder.parent / "index.html"
    assert cli.main(["report", "--results", str(folder), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(folder / name) in error
    assert not out.exists()


def test_wrong_folders_are_one_line(folder, capsys):
    for arguments in (["--results", "nowhere"], ["--results", str(folder), "--runs", "nowhere"],
                      ["--results", str(folder), "--out", str(folder)]):  # fmt: skip
        assert cli.main(["report", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match="nowhere"):
        files.read(folder, [Path("nowhere")])
