"""What a release is: sdist, wheel, and the wheel alone in a fresh environment. Run by `make package-check`.

It needs the package index, for the build's and the core's requirements.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("envs", "baselines", "agents", "transceivers", "benchmarks")
CORE = {"semcom-gym", "gymnasium", "numpy", "scipy", "array-api-compat", "rustworkx"}
INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt"))
QUICK_CALLS = """
import importlib.metadata, sys
import gymnasium as gym
import semcom_gym
from semcom_gym import baselines, envs
from semcom_gym.envs import curve

assert semcom_gym.__version__ == importlib.metadata.version("semcom-gym")
for env_id in envs.IDS:
    env = gym.make(env_id)
    env.reset(seed=0)
    masks = getattr(env.unwrapped, "action_masks", None)
    env.step(env.action_space.sample(masks().astype("int8") if masks else None))
    many = gym.make_vec(env_id, num_envs=3, vectorization_mode="vector_entry_point")
    assert len(many.reset(seed=0)[0]) == 3
for name in envs.NAMES:
    problem = envs.problem(name)
    for preset in problem.PRESETS:
        problem.sample_split(problem.preset(preset), "test", n=1)
    for known in curve.shipped(name):
        curve.load(name, known, ())
params = envs.problem("crra").preset("default", num_users=3)
cells = envs.problem("crra").sample_split(params, "test", n=2)
solution, bound = baselines.solve("crra", params, cells, "fast"), baselines.bound("crra", params, cells)
assert solution.feasible.all() and (solution.objective <= bound.value * (1 + 1e-9)).all()
try:
    import semcom_gym.agents
except ModuleNotFoundError as error:
    assert "pip install 'semcom-gym[agents]'" in str(error), error
else:
    raise AssertionError("agents without their extra")
print(semcom_gym.__file__)
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the checkout that git knows or would take, so that nothing left lying about is built in."""
    folder = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an sdist and the wheel made from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, source, cwd=out)
    return out


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=built)
    found = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(found, *INSTALL, next(built.glob("*.whl")), cwd=built)
    return found


def test_wheel_holds_every_file_of_the_folders(source: Path, built: Path) -> None:
    files = [path.relative_to(source) for floor in FLOORS for path in (source / floor).rglob("*") if path.is_file()]
    wanted = {f"semcom_gym/{path.as_posix()}".replace("envs/_root/", "") for path in files}
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("semcom_gym/")}
        others = {name.split("/")[0] for name in wheel.namelist()} - {"semcom_gym"}
    assert held == wanted
    assert len(others) == 1
    assert others.pop().endswith(".dist-info")


def test_sdist_holds_licence_and_readme(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "setup.cfg", "pyproject.toml", "PKG-INFO"} <= names


def test_requirements_are_the_core(python: Path, tmp_path: Path) -> None:
    listed = run(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check", cwd=tmp_path).lower()
    names = {line.split("==")[0].split(" @")[0] for line in listed.splitlines()}
    assert names >= CORE
    assert not names & {"torch", "cvxpy", "matplotlib", "tqdm", "pillow", "stable-baselines3"}


def test_quick_calls_without_extras(python: Path, tmp_path: Path) -> None:
    where = Path(run(python, "-I", "-c", QUICK_CALLS, cwd=tmp_path).strip())
    assert where.is_relative_to(python.parent.parent)


def test_command_without_extras(python: Path, tmp_path: Path) -> None:
    command = python.parent / "semcom-gym"
    assert "SemCom/CRRA-v0" in run(command, "envs", cwd=tmp_path)
    assert "fast" in run(command, "solve", "SemCom/CRRA-v0", "--method", "fast", "-n", "3", cwd=tmp_path)


RECORD = """
import sys
import gymnasium as gym
import numpy as np

env = gym.make("semcom_gym:SemCom/CRRAFading-v0", render_mode="rgb_array", horizon=3)
env = gym.wrappers.RecordVideo(env, sys.argv[1], episode_trigger=lambda _: True)
env.reset(seed=0)
for _ in range(3):
    env.step(np.zeros(env.action_space.shape, np.float32))
env.close()
"""


def test_gymnasium_records_a_film(python: Path, built: Path, tmp_path: Path) -> None:
    """Last, as it adds to the environment; without our pins, as moviepy wants an older Pillow than they name."""
    wheel = f"{next(built.glob('*.whl'))}[report]"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, "moviepy", cwd=tmp_path)
    run(python, "-W", "error::ResourceWarning", "-c", RECORD, tmp_path / "film", cwd=tmp_path)
    assert [path.stat().st_size > 10_000 for path in (tmp_path / "film").glob("*.mp4")] == [True]
