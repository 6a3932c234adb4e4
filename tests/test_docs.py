"""The documentation is executed, and its tables are the registry."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shlex
from pathlib import Path

import gymnasium as gym
import pytest

from semcom_gym import baselines, envs
from semcom_gym.envs import curve, fading

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PROBLEM_PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in envs.NAMES}
ANCHORS = {"crra": "fra", "sfma": "equal", "ascc": "equal_mmse", "training": "equal_bandwidth"}
# the id that a page's tables of spaces describe
FULLEST = {
    "crra": "SemCom/CRRAUS-v0", "sfma": "SemCom/SFMA-v0", "ascc": "SemCom/ASCC-v0", "training": "SemCom/Training-v0",
}  # fmt: skip


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for k, match in enumerate(re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
            found.append((f"{page.relative_to(ROOT)}#{k}", match.group(1)))
    return found


def commands() -> list[str]:
    lines = [line.strip() for _, block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("semcom-gym")]


def table(problem: str, heading: str) -> list[list[str]]:
    """Cells of the first table after a heading of a problem's page ("" for its title), without its head."""
    section = PROBLEM_PAGES[problem].split(f"{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(("name", "block"), blocks("python"), ids=[name for name, _ in blocks("python")])
def test_python_block_runs(name: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "agents" in block:
        pytest.importorskip("stable_baselines3")
    if "minari" in block:
        pytest.importorskip("minari")
    if "dask_jobqueue" in block:
        pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    for problem in envs.NAMES:  # a page that registers a method of its own leaves none behind
        module = importlib.import_module(f"semcom_gym.baselines.{problem}")
        monkeypatch.setattr(module, "METHODS", dict(module.METHODS))
    exec(compile(block, name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", commands())
def test_command_is_one(command: str) -> None:
    from semcom_gym.benchmarks import cli

    args = cli.parser().parse_args(shlex.split(command, comments=True)[1:])
    ids = [value for value in shlex.split(command) if value.startswith("SemCom/")]
    assert set(ids) <= set(envs.IDS | envs.FADING_IDS)
    problem = gym.make(ids[0]).unwrapped.problem if ids else envs.problem("crra")
    method = getattr(args, "method", None) or []
    assert set([method] if isinstance(method, str) else method) <= set(baselines.methods(problem.name))
    preset = getattr(args, "preset", None) or []
    assert set([preset] if isinstance(preset, str) else preset) <= set(problem.PRESETS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_every_id_has_a_page() -> None:
    rows = {code(row[0])[0]: code(row[2])[0] for problem in PROBLEM_PAGES for row in table(problem, "")}
    assert set(rows) == set(envs.IDS)
    for name, preset in rows.items():
        env = gym.make(name).unwrapped
        assert env.params == env.problem.PRESETS[preset]
    assert all(f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8") for name in envs.IDS)


@pytest.mark.parametrize("name", envs.NAMES)
def test_fields_of_params(name: str) -> None:
    documented = {code(row[0])[0]: ast.literal_eval(code(row[3])[0]) for row in table(name, "### Params")}
    fields = {field.name: field.default for field in dataclasses.fields(envs.problem(name).Params)}
    assert documented == fields


@pytest.mark.parametrize("name", envs.NAMES)
def test_presets(name: str) -> None:
    problem = envs.problem(name)
    rows = table(name, "### Presets")
    assert [code(row[0])[0] for row in rows] == list(problem.PRESETS)
    for row in rows:
        changes = dict(item.split("=", 1) for item in code(row[1]))
        params = problem.Params(**{key: ast.literal_eval(value) for key, value in changes.items()})
        assert params == problem.PRESETS[code(row[0])[0]]


def test_curves_of_crra() -> None:
    rows = {code(row[0])[0]: [float(cell) for cell in row[1:]] for row in table("crra", "### Curves")}
    assert sorted(rows) == curve.shipped("crra")
    for name, numbers in rows.items():
        loaded = curve.load("crra", name, ())
        exact = [*loaded.parameters.values(), loaded.goodness["rmse"]]  # printed in full in the paper, not here
        assert numbers == (pytest.approx(exact, rel=5e-4, abs=0.0) if loaded.kind == "measured" else exact)


def test_curves_of_sfma() -> None:
    rows = {
        code(row[0])[0]: [[float(x) for x in cell.split(" to ")] for cell in row[1:]]
        for row in table("sfma", "### Curves")
    }
    assert sorted(rows) == [name for name in curve.shipped("sfma") if not name.startswith("measured")]
    for name, numbers in rows.items():
        p = curve.load("sfma", name, ()).parameters
        least = [row[-1] for row in p["distortion"]]
        tables = [p[k] for k in ("rho_min", "rho_max", "midpoint_power_w", "midpoint_ratio", "steepness")]
        assert [n * 2 if len(n) == 1 else n for n in numbers] == [*tables, least]


def test_curves_of_ascc() -> None:
    """The rate tables by their ends, the others by name."""
    section = PROBLEM_PAGES["ascc"].split("### Curves\n", 1)[1].split("A table of your own", 1)[0]
    named = {name for row in re.findall(r"^\|(.*?)\|", section, re.MULTILINE) for name in code(row)}
    assert sorted(named) == curve.shipped("ascc")
    for row in table("ascc", "### Curves"):
        p = curve.load("ascc", code(row[0])[0], ()).parameters
        designed = (p["rate_bit"][0], p["rate_bit"][-1], len(p["rate_bit"])) == (2400, 93000, 23)
        assert designed or (code(row[0])[0].startswith("measured") and len(p["rate_bit"]) == 8)
        most = [sum(x) for x in zip(p["source_distortion"], p["channel_distortion"], strict=True)]
        for cell, column in zip(row[1:], (p["source_distortion"], most, p["slope"], p["midpoint"]), strict=True):
            ends = [float(x) for x in cell.split(" to ")]
            assert ends * (3 - len(ends)) == pytest.approx([column[0], column[-1]], rel=5e-4)


def test_curves_of_training() -> None:
    rows = {code(row[0])[0]: [float(cell) for cell in row[1:] if cell] for row in table("training", "### Curves")}
    assert sorted(rows) == curve.shipped("training")
    for name, numbers in rows.items():
        exact = list(curve.load("training", name, ()).parameters.values())
        assert numbers == (pytest.approx(exact, rel=5e-4) if name == "deepjscc_small" else exact)


@pytest.mark.parametrize("name", envs.NAMES)
def test_methods(name: str) -> None:
    rows = {code(row[0])[0]: row[1] for row in table(name, "## Solvers")}
    assert list(rows) == list(baselines.methods(name))
    assert baselines.anchor(name) == ANCHORS[name]
    assert "the anchor" in rows[ANCHORS[name]]


@pytest.mark.parametrize("problem", envs.NAMES)
def test_action_and_observation_tables(problem: str) -> None:
    env = gym.make(FULLEST[problem]).unwrapped
    done, seen = env.action_layout, env.observation_layout
    assert [code(row[0])[0] for row in table(problem, "## Action space")] == [*done.pair_blocks, *done.blocks]
    rows = [name for row in table(problem, "## Observation space") for name in code(row[0])]
    assert rows == [*seen.user_features, *seen.pair_features, *seen.global_features]


@pytest.mark.parametrize("problem", envs.NAMES)
def test_info_names(problem: str) -> None:
    env = gym.make(FULLEST[problem])
    env.reset(seed=0)
    info = env.step(env.action_space.sample())[4]
    named = set(code(PROBLEM_PAGES[problem].split("## Rewards\n")[1].split("##")[0]))
    assert {key for key in info if not key.startswith("violation/")} | set(info["terms"]) <= named


# --- the page of the Fading ids ---
FADING_PAGE = (ROOT / "docs" / "fading.md").read_text(encoding="utf-8")


def fading_table(heading: str) -> list[list[str]]:
    rows = re.search(r"(?:^\|.*\n)+", FADING_PAGE.split(f"{heading}\n", 1)[1], re.MULTILINE).group().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_fading_ids_are_on_their_page_and_in_the_readme() -> None:
    assert [code(row[0])[0] for row in fading_table("# Fading: decisions over time")] == list(envs.FADING_IDS)
    assert all(f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8") for name in envs.FADING_IDS)


def test_fields_of_fading_and_scenarios() -> None:
    documented = {code(row[0])[0]: ast.literal_eval(code(row[3])[0]) for row in fading_table("### Fields of Fading")}
    assert documented == {field.name: field.default for field in dataclasses.fields(fading.Fading)}
    rows = fading_table("### Scenarios")
    assert [code(row[0])[0] for row in rows] == list(fading.SCENARIOS)
    for row in rows:
        changes = dict(item.split("=", 1) for item in code(row[1]))
        made = fading.Fading(**{key: ast.literal_eval(value) for key, value in changes.items()})
        assert made == fading.SCENARIOS[code(row[0])[0]]


def test_what_fading_adds_to_observation_action_and_info() -> None:
    env = gym.make("SemCom/CRRAFading-v0").unwrapped
    plain = gym.make("SemCom/CRRA-v0").unwrapped
    seen, before = env.observation_layout, plain.observation_layout
    added = [*seen.user_features[len(before.user_features) :], *seen.global_features[len(before.global_features) :]]
    assert [code(row[0])[0] for row in fading_table("## Observation space")] == added
    blocks = env.action_layout.blocks[len(plain.action_layout.blocks) :]
    assert [code(row[0])[0] for row in fading_table("## Action space")] == list(blocks)
