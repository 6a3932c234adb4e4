"""The site, the package data and the citation as their sources show them; `make docs` builds the site."""

from __future__ import annotations

import ast
import fnmatch
import re

import pytest
import yaml
from test_package import FLOORS, ROOT, setup_cfg

import semcom_gym
from semcom_gym import agents, baselines, envs

CONF = ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8"))
REFERENCE = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.rst")))


def test_every_page_is_in_the_navigation_once() -> None:
    assigned = {node.targets[0].id: node.value for node in CONF.body if isinstance(node, ast.Assign)}
    listed = [page for pages in ast.literal_eval(assigned["NAVIGATION"]).values() for page in pages]
    pages = {path.stem for path in ROOT.glob("*.md")} - {"README"}
    pages |= {f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md")} | {"docs/results/README"}
    pages |= {f"docs/notebooks/{path.stem}" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    pages |= {f"docs/api/{path.stem}" for path in (ROOT / "docs" / "api").glob("*.rst")}
    assert sorted(listed) == sorted(pages)


def test_every_public_name_is_in_the_reference() -> None:
    named = set(re.findall(r"^\.\. (?:auto\w+|py:data):: (\S+)", REFERENCE, re.MULTILINE))
    public = {f"{module.__name__}.{name}" for module in (envs, baselines, agents) for name in module.__all__}
    public |= {entry.replace(":", ".") + "Env" for entry in (envs.IDS | envs.FADING_IDS).values()}
    for name in envs.NAMES:
        problem = envs.problem(name)
        public |= {
            f"{part.__module__}.{part.__name__}" for part in (problem.Params, problem.Instance, problem.Allocation)
        }
    assert public <= named


@pytest.mark.parametrize("floor", FLOORS)
def test_every_data_file_is_packaged(floor: str) -> None:
    cfg = setup_cfg()
    packages = dict(line.split(" = ") for line in cfg["options"]["package_dir"].strip().splitlines())
    patterns = {ROOT / folder: [*cfg["options.package_data"]["*"].split(",")] for folder in packages.values()}
    for name, text in cfg["options.package_data"].items():
        if name != "*":
            patterns[ROOT / packages[name]] += [pattern.strip() for pattern in text.split(",")]
    for path in (ROOT / floor).rglob("*"):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            home = next(parent for parent in path.parents if parent in patterns)
            inside = path.relative_to(home).as_posix()
            assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns[home]), path.relative_to(ROOT)


def test_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == semcom_gym.__version__
    assert citation["title"] == setup_cfg()["metadata"]["name"]
    assert citation["license"] == setup_cfg()["metadata"]["license_expression"]
    assert {"cff-version", "message", "authors", "type"} <= set(citation)
