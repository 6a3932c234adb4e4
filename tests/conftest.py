"""Settings of every test: one thread, no display, reproducible property tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy and torch are imported
os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("semcom", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("semcom")

pytest_plugins = ("cheap_bounds", "default_device")

IDS = (  # one decision an episode
    "SemCom/CRRA-v0", "SemCom/CRRAUS-v0", "SemCom/SFMA-v0", "SemCom/ASCC-v0", "SemCom/Training-v0",
)  # fmt: skip
PRESETS = {
    "SemCom/CRRA-v0": ("default", "paper", "hard", "general"),
    "SemCom/CRRAUS-v0": ("default", "paper", "hard", "select", "general"),
    "SemCom/SFMA-v0": ("default", "paper", "loose", "tight", "pruned", "figures", "measured"),
    "SemCom/ASCC-v0": ("default", "paper", "two_user", "three_user", "hard", "measured"),
    "SemCom/Training-v0": ("default", "paper", "large", "hard"),
}


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    """Every registered id with one decision an episode."""
    return str(request.param)


@pytest.fixture(params=[(i, p) for i in IDS for p in PRESETS[i]], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def env_and_preset(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Every such id with every preset it can be made with."""
    return request.param  # type: ignore[no-any-return]
