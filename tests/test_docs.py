"""The documentation is executed, and its tables are the registry."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from pathlib import Path

import gymnasium as gym
import pytest

from semcom_gym import baselines, envs
from semcom_gym.envs import curve

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CRRA_PAGE = (ROOT / "docs" / "crra.md").read_text(encoding="utf-8")


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


def table(heading: str, text: str = CRRA_PAGE) -> list[list[str]]:
    """Cells of the first table after a heading, without its head."""
    section = text.split(f"{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(("name", "block"), blocks("python"), ids=[name for name, _ in blocks("python")])
def test_python_block_runs(name: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "agents" in block:
        pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("command", commands())
def test_command_is_one(command: str) -> None:
    from semcom_gym.benchmarks import cli

    args = cli.parser().parse_args(shlex.split(command, comments=True)[1:])
    ids = [value for value in shlex.split(command) if value.startswith("SemCom/")]
    assert set(ids) <= set(envs.IDS)
    method = getattr(args, "method", None) or []
    assert set([method] if isinstance(method, str) else method) <= set(baselines.methods("crra"))
    preset = getattr(args, "preset", None) or []
    assert set([preset] if isinstance(preset, str) else preset) <= set(envs.problem("crra").PRESETS)


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
    rows = {code(row[0])[0]: code(row[2])[0] for row in table("# CRRA and CRRAUS")}
    assert set(rows) == set(envs.IDS)
    for name, preset in rows.items():
        assert gym.make(name).unwrapped.params == envs.problem("crra").PRESETS[preset]
    assert all(f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8") for name in envs.IDS)


def test_fields_of_params() -> None:
    documented = {code(row[0])[0]: ast.literal_eval(code(row[3])[0]) for row in table("### Params")}
    fields = {field.name: field.default for field in dataclasses.fields(envs.problem("crra").Params)}
    assert documented == fields


def test_presets() -> None:
    problem = envs.problem("crra")
    rows = table("### Presets")
    assert [code(row[0])[0] for row in rows] == list(problem.PRESETS)
    for row in rows:
        changes = dict(item.split("=", 1) for item in code(row[1]))
        params = problem.Params(**{key: ast.literal_eval(value) for key, value in changes.items()})
        assert params == problem.PRESETS[code(row[0])[0]]


def test_curves() -> None:
    rows = {code(row[0])[0]: [float(cell) for cell in row[1:]] for row in table("### Curves")}
    assert sorted(rows) == curve.shipped("crra")
    for name, numbers in rows.items():
        loaded = curve.load("crra", name, ())
        assert numbers == [*loaded.parameters.values(), loaded.goodness["rmse"]]


def test_methods() -> None:
    rows = [code(row[0])[0] for row in table("## Solvers")]
    assert rows == list(baselines.methods("crra"))
    assert baselines.anchor("crra") == "fra"
    assert "the anchor" in dict(zip(rows, table("## Solvers"), strict=True))["fra"][1]


def test_action_and_observation_tables() -> None:
    env = gym.make("SemCom/CRRAUS-v0").unwrapped
    assert [code(row[0])[0] for row in table("## Action space")] == list(env.action_layout.blocks)
    rows = [name for row in table("## Observation space") for name in code(row[0])]
    assert rows == [*env.observation_layout.user_features, *env.observation_layout.global_features]


def test_info_names() -> None:
    env = gym.make("SemCom/CRRA-v0")
    env.reset(seed=0)
    info = env.step(env.action_space.sample())[4]
    named = set(code(CRRA_PAGE.split("## Rewards\n")[1].split("##")[0]))
    assert {key for key in info if not key.startswith("violation/")} | set(info["terms"]) <= named
