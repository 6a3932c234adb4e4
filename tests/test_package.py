"""The package as a whole: folders, floors, light imports, pins, versions, public names."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import hashlib
import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import semcom_gym
from semcom_gym import baselines, envs

ROOT = Path(__file__).parent.parent
FLOORS = ("envs", "baselines", "agents", "transceivers", "benchmarks")
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


# --- folders ---------------------------------------------------------------------------------------------------------
def test_packages_of_setup_cfg_are_the_folders() -> None:
    options = setup_cfg()["options"]
    mapping = dict(line.split(" = ") for line in options["package_dir"].strip().splitlines())
    assert sorted(options["packages"].split()) == sorted(mapping)
    folders = {path.parent.relative_to(ROOT).as_posix() for path in SOURCES}
    assert folders == set(mapping.values())
    for name, folder in mapping.items():
        assert (ROOT / folder / "__init__.py").is_file(), folder
        assert name == ("semcom_gym" if folder == "envs/_root" else "semcom_gym." + folder.replace("/", "."))


def test_every_package_is_marked_as_typed() -> None:
    for folder in ("envs/_root", *FLOORS):
        assert (ROOT / folder / "py.typed").is_file(), folder


def test_tests_run_on_the_checkout() -> None:
    assert Path(envs.__file__).parent == ROOT / "envs", "install with `make test` (editable)"


# --- floors ----------------------------------------------------------------------------------------------------------
MAY_USE = {
    "envs": {"envs"},
    "baselines": {"envs", "baselines"},
    "agents": {"envs", "baselines", "agents"},
    "transceivers": {"envs", "transceivers"},
    "benchmarks": set(FLOORS),
}
# third parties: what a floor may import at module level, and what it may import besides when a function needs it
CORE = {"numpy", "scipy", "gymnasium", "array_api_compat"}
TRAINING = {"torch", "stable_baselines3", "sb3_contrib", "tensorboard", "yaml", "tqdm", "rich"}
THIRD_PARTIES = {
    "envs": (CORE, {"torch", "matplotlib", "rustworkx"}),
    "baselines": (CORE, {"cvxpy", "tqdm", "rustworkx"}),
    "agents": (CORE | TRAINING, {"matplotlib", "optuna", "sqlalchemy", "minari"}),
    "transceivers": (CORE | {"torch", "tqdm"}, {"PIL", "constriction", "av", "sionna"}),
    "benchmarks": (
        CORE | {"tqdm"},
        TRAINING | {"matplotlib", "cvxpy", "av", "joblib", "ray", "distributed", "minari", "PIL"},
    ),
}
DISTRIBUTION = {
    "yaml": "pyyaml", "PIL": "pillow", "sb3_contrib": "sb3-contrib", "stable_baselines3": "stable-baselines3",
    "distributed": "dask",
    "sionna": "sionna-no-rt",
}  # fmt: skip


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Dotted name of every import of a file, and whether it runs when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for scope in ast.walk(tree)
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(scope)
    }
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{a.name}" for a in node.names] if module == "semcom_gym" else [module]
        else:
            continue
        for name in names:
            yield name, id(node) not in inner and id(node) not in typing_only


@pytest.mark.parametrize("floor", FLOORS)
def test_no_floor_imports_one_above_it(floor: str) -> None:
    for path in (p for p in SOURCES if p.is_relative_to(ROOT / floor)):
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] == "semcom_gym" and len(parts) > 1 and parts[1] in FLOORS:
                assert parts[1] in MAY_USE[floor], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("floor", FLOORS)
def test_third_parties_of_a_floor(floor: str) -> None:
    always, lazily = THIRD_PARTIES[floor]
    for path in (p for p in SOURCES if p.is_relative_to(ROOT / floor)):
        for name, at_import in imports(path):
            top = name.split(".")[0]
            if top == "semcom_gym" or top in sys.stdlib_module_names:
                continue
            allowed = always if at_import else always | lazily
            when = "at import" if at_import else "at all"
            assert top in allowed, f"{path.relative_to(ROOT)} imports {top} {when}"


def test_every_third_party_is_declared() -> None:
    parser = setup_cfg()
    declared = parser["options"]["install_requires"] + "".join(parser["options.extras_require"].values())
    names = {re.split(r"[<>=\[;]", line.strip())[0].lower() for line in declared.splitlines() if line.strip()}
    used = {name.split(".")[0] for path in SOURCES for name, _ in imports(path)}
    third = {name for name in used if name != "semcom_gym" and name not in sys.stdlib_module_names}
    assert {DISTRIBUTION.get(name, name.replace("_", "-")) for name in third} <= names


def test_extras() -> None:
    extras = setup_cfg()["options.extras_require"]
    users = {"agents", "solvers", "transceivers", "codecs", "codes", "report", "ray", "dask", "tune", "datasets", "all"}
    assert set(extras) == users | {"test", "docs"}
    assert extras["all"].strip() == "semcom-gym[agents,solvers,codecs,report,tune,datasets]"


# --- light imports ---------------------------------------------------------------------------------------------------
def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    heavy = ("torch", "cvxpy", "matplotlib", "stable_baselines3", "tensorboard", "tqdm", "yaml")
    code = f"import sys, semcom_gym, semcom_gym.baselines; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_without_the_extras_everything_of_the_core_works() -> None:
    """As installed by `pip install semcom-gym`: environments, heuristics, the fast solver and the bound."""
    blocked = ("torch", "cvxpy", "matplotlib", "stable_baselines3", "tensorboard", "tqdm", "yaml", "rich")
    run(f"""
import sys
for name in {blocked}:
    sys.modules[name] = None
import gymnasium as gym
from semcom_gym import baselines, envs
env = gym.make("SemCom/CRRA-v0", num_users=3)
env.reset(seed=0)
params, instance = env.unwrapped.params, env.unwrapped.instance
values = {{}}
for name in baselines.methods("crra"):
    try:
        values[name] = float(baselines.solve("crra", params, instance, name).objective[0])
    except ModuleNotFoundError as error:
        assert "semcom-gym[solvers]" in str(error) and name.startswith("crra"), (name, error)
assert {{"equal", "fra", "fcr", "msr", "fast"}} <= set(values), values
assert float(baselines.bound("crra", params, instance).value[0]) >= max(values.values())
""")


# --- files -----------------------------------------------------------------------------------------------------------
def test_curve_pins_are_the_files() -> None:
    for problem in envs.NAMES:
        pins = importlib.import_module(f"semcom_gym.envs.{problem}.instance").CURVE_PINS
        files = {path.stem: path for path in (ROOT / "envs" / problem / "curves").glob("*.json")}
        assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == pins


def test_no_path_of_a_machine_in_the_files() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    local = re.compile(rb"/(?:home|root|work|Users|tmp)/[\w.]")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            found = local.search(path.read_bytes())
            assert found is None, f"{name}: {found.group()!r}"


def test_one_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", semcom_gym.__version__)
    assert importlib.metadata.version("semcom-gym") == semcom_gym.__version__
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == semcom_gym.__version__


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()


# --- public names: a change here is a change for other people's code -------------------------------------------------
def names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def test_public_names() -> None:
    assert envs.__all__ == ["FADING_IDS", "IDS", "NAMES", "Problem", "default_preset", "problem"]
    assert envs.NAMES == ("crra", "sfma", "ascc", "training")
    assert list(envs.IDS) == [
        "SemCom/CRRA-v0", "SemCom/CRRAUS-v0", "SemCom/SFMA-v0", "SemCom/SFMAPairing-v0", "SemCom/ASCC-v0",
        "SemCom/Training-v0",
    ]  # fmt: skip
    assert list(envs.FADING_IDS) == [
        "SemCom/CRRAFading-v0", "SemCom/CRRAUSFading-v0", "SemCom/SFMAFading-v0", "SemCom/ASCCFading-v0",
        "SemCom/TrainingFading-v0",
    ]  # fmt: skip
    assert baselines.__all__ == ["Bound", "Method", "Solution", "anchor", "bound", "methods", "on_torch", "solve"]
    problem = envs.problem("crra")
    assert {"name", "Params", "PRESETS", "Instance", "Allocation"} <= set(names(type(problem)))
    for method in ("preset", "sample", "sample_split", "evaluate", "decode", "encode", "observe"):
        assert callable(getattr(problem, method))
    assert names(baselines.Solution) == [
        "allocation", "objective", "feasible", "seconds", "iterations", "trace", "status",
    ]  # fmt: skip
    assert names(baselines.Bound) == ["value", "gap", "best", "seconds"]
    assert list(problem.PRESETS) == ["default", "paper", "hard", "select", "general"]
    assert names(problem.Instance) == [
        "distance_m", "angle_rad", "gain", "weight", "curve", "bandwidth_hz", "power_w",
    ]  # fmt: skip
    assert names(problem.Allocation) == ["bandwidth_hz", "power_w", "ratio", "selected"]
    assert names(problem.Params) == [
        "num_users", "max_bandwidth_hz", "max_power_w", "bandwidth_range_hz", "power_range_w", "min_bandwidth_hz",
        "min_power_w", "noise_psd_dbm_hz", "payload_bit", "deadline_s", "cell_radius_m", "min_distance_m",
        "shadowing_db", "service_weights", "curves", "max_ratio", "success", "selection",
    ]  # fmt: skip


def test_public_names_of_sfma() -> None:
    problem = envs.problem("sfma")
    assert list(problem.PRESETS) == ["default", "paper", "loose", "tight", "pruned", "figures", "measured"]
    assert names(problem.Instance) == [
        "distance_m", "angle_rad", "gain", "source_bit", "decode_s", "distortion_tilt", "similarity", "encode_s",
        "rho_min", "rho_max", "power_slope", "ratio_slope", "offset", "distortion_level",
    ]  # fmt: skip
    assert names(problem.Allocation) == ["pair", "power_w", "bandwidth_hz", "ratio"]
    assert names(problem.Params) == [
        "num_users", "max_power_w", "max_bandwidth_hz", "max_latency_s", "energy_per_group_j", "max_distortion",
        "min_ratio", "energy_coefficient_j", "source_bit", "source_spread", "encoder_cycles", "decoder_cycles",
        "cycles_spread", "bs_frequency_hz", "user_frequency_hz", "noise_psd_dbm_hz", "cell_radius_m", "min_distance_m",
        "shadowing_db", "rayleigh", "extra_loss_db", "clusters", "content_correlation", "curve",
    ]  # fmt: skip


def test_public_names_of_ascc() -> None:
    problem = envs.problem("ascc")
    assert list(problem.PRESETS) == ["default", "paper", "two_user", "three_user", "hard", "measured"]
    assert names(problem.Instance) == ["channel_re", "channel_im"]
    assert names(problem.Allocation) == ["power_w", "beam_re", "beam_im", "rate_index"]
    assert names(problem.Params) == [
        "num_users", "num_data_users", "num_antennas", "max_power_w", "blocklength", "channel_uses", "weights",
        "channel_correlation", "gain_range_db", "channel_matrix", "data_table", "semantic_table", "beamforming",
        "rate_action",
    ]  # fmt: skip


def test_public_names_of_training() -> None:
    problem = envs.problem("training")
    assert list(problem.PRESETS) == ["default", "paper", "large", "hard", "measured"]
    assert names(problem.Instance) == [
        "distance_m", "angle_rad", "gain", "max_frequency_hz", "min_psnr_db", "device_cycles", "bs_cycles",
    ]  # fmt: skip
    assert names(problem.Allocation) == [
        "power_w", "bandwidth_hz", "device_frequency_hz", "bs_frequency_hz", "ratio",
    ]  # fmt: skip
    assert names(problem.Params) == [
        "num_users", "total_bandwidth_hz", "max_power_w", "device_frequency_range_hz", "max_bs_frequency_hz",
        "psnr_range_db", "min_ratio", "max_ratio", "samples", "sample_bit", "capacitance", "device_cycles_range",
        "bs_cycles_range", "noise_psd_dbm_hz", "cell_radius_m", "min_distance_m", "shadowing_db", "time_weight",
        "psnr_curve",
    ]  # fmt: skip


@pytest.mark.parametrize("env_id", envs.IDS)
def test_public_names_of_the_environments(env_id: str) -> None:
    import gymnasium as gym

    env = gym.make(env_id).unwrapped
    many = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point").unwrapped
    for name in ("instance", "params", "problem", "encode", "observation_layout", "action_layout"):
        assert hasattr(env, name)
        assert hasattr(many, name)
    env.reset(seed=0)
    ended = False
    while not ended:
        masks = getattr(env, "action_masks", None)
        ended, _, info = env.step(env.action_space.sample(masks().astype("int8") if masks else None))[2:]
    assert {"objective", "feasible", "cost", "terms"} <= set(info)


def test_public_docstrings() -> None:
    import inspect

    for module in (envs, baselines):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert inspect.getdoc(thing), name
