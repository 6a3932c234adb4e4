"""Sphinx settings of the documentation site; `make docs` builds it into build/site with warnings as errors.

The source folder is the root of the repository, so that the links between the pages are the same here and on a code
host. Navigation is added while the pages are read: they need no directives of their own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import semcom_gym

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"

# Caption -> pages, in the order of the side bar. A page that is missing here fails the build.
NAVIGATION = {
    "Environments": [
        "docs/crra",
        "docs/sfma",
        "docs/ascc",
        "docs/training",
        "docs/fading",
        "docs/certificates",
        "docs/curves",
        "docs/own_solver",
        "docs/own_paper",
    ],
    "Learning": ["docs/agents", "docs/own_policy", "docs/datasets"],
    "Notebooks": [
        "docs/notebooks/beat_the_solver",
        "docs/notebooks/profile_a_transceiver",
        "docs/notebooks/read_a_run",
    ],
    "Transceivers": [
        "docs/transceivers",
        "docs/classifier",
        "docs/iterative",
        "docs/sc_sfma",
        "docs/hyperprior",
        "docs/digital",
    ],
    "Results": ["docs/results/README", "docs/report", "docs/rendering", "docs/speed", "docs/many_machines"],
    "Reference": ["docs/api/envs", "docs/api/problems", "docs/api/baselines", "docs/api/agents"],
    "Project": ["CONTRIBUTING", "CHANGELOG"],
}

project = "semcom-gym"
author = "semcom-gym contributors"
project_copyright = "semcom-gym contributors, MIT licence"
version = release = semcom_gym.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
source_suffix = {".rst": "restructuredtext", ".md": "markdown", ".ipynb": "markdown"}
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/**/*.md", "docs/api/*.rst"]
include_patterns += ["docs/notebooks/*.ipynb"]
# folders that Sphinx need not walk; a hidden one is a link to the root
exclude_patterns = [".*", "build", "dist", "results", "runs", "tests", "*.egg-info"]
nitpicky = True
# what stands in signatures and is documented elsewhere, or is a type of the source only
OTHERS = r"(gymnasium|gym|numpy|np|torch|th|stable_baselines3|sb3_contrib|collections|pathlib)\..*"
PRIVATE = r"GymEnv|Schedule|.*\.BatchT|.*\.callbacks\.Reference|.*\.FadingSetup"
nitpick_ignore_regex = [("py:.*", rf"({OTHERS}|BasePolicy|{PRIVATE})")]

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"semcom-gym {release}"
html_static_path: list[str] = []
html_additional_pages = {"index": "index.html"}
templates_path = ["_templates"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False


def toctree(pages: list[str], caption: str = "") -> str:
    """A hidden table of contents in Markdown; an entry is a page, or "title <page>"."""
    lines = [":hidden:", *([f":caption: {caption}"] if caption else []), "", *pages]
    return "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n"


def result_pages() -> list[str]:
    """Entries of the leaderboards and claims: their headings do not say which they are, their folders do."""
    boards = [
        f"{path.parent.name} <{path.parent.name}/leaderboard>" for path in sorted(RESULTS.glob("*/leaderboard.md"))
    ]
    claims = sorted((RESULTS / "figures").glob("*/claims.md"))
    shifts = ["generalise/generalise"]
    return boards + shifts + [f"claims: {path.parent.name} <figures/{path.parent.name}/claims>" for path in claims]


def add_navigation(app: Any, page: str, source: list[str]) -> None:
    """Hang the side bar below the start page, and the tables below the results."""
    if page == root_doc:
        source[0] += "".join(toctree(pages, caption) for caption, pages in NAVIGATION.items())
    elif page == "docs/results/README":
        source[0] += toctree(result_pages())


def to_markdown(app: Any, page: str, source: list[str]) -> None:
    """A notebook as Markdown: its text, and its code in fences. Tests run it; the site shows no outputs."""
    if not page.startswith("docs/notebooks/"):
        return
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(source[0])["cells"]]
    source[0] = "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells)


def to_rst(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A docstring as it is written here: "## Heading" begins a section of an environment's, |x| is a modulus."""
    found = []
    for line in lines:
        parts = line.split("``")
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        text, *sections = re.split(r"(?:^| )## ", "``".join(parts))
        found.append(text)
        for section in sections:
            heading, _, rest = section.partition(": ")
            found += ["", f".. rubric:: {heading}", "", rest]
    lines[:] = found


def without_addresses(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A signature without the defaults that Python cannot read back, "<factory>" and "<function ...>"."""
    return signature and re.sub(r"<[^<>]*>", "...", signature), returned


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("source-read", add_navigation)
    app.connect("source-read", to_markdown)
    app.connect("autodoc-process-docstring", to_rst)
    app.connect("autodoc-process-signature", without_addresses)
