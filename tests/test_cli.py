"""The command line: results, exit codes, and one line for every mistake."""

import json
import subprocess
import sys

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import crra, sfma
from semcom_gym.baselines.solution import Bound, Method
from semcom_gym.benchmarks import certificates, cli, errors

COMMANDS = ("envs", "solve", "train", "tune", "benchmark", "figures", "speed", "data", "profile", "report", "rounds")
HEAVY = ("torch", "cvxpy", "matplotlib", "stable_baselines3")


def loose_bound(params, instance):
    """A stand-in that costs nothing: the fast solver's objective and a little more."""
    best = crra.fast.solve(params, instance)
    return Bound(best.objective + 0.01, 0.01 / best.objective, best, np.zeros(len(instance)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, and bounds that cost nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bounds").mkdir()
    monkeypatch.setattr(certificates, "FOLDER", tmp_path / "bounds")
    monkeypatch.setattr(crra, "prove", loose_bound)
    return tmp_path


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def failing(error):
    """A method that raises; raised here, that is outside the package."""

    def solve(params, instance):
        raise error

    return Method(solve, "fails", "test")


# --- help and lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_help_page_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    assert " ".join(["semcom-gym", *command]) in page.partition("example")[2]


def test_envs_lists_ids_presets_spaces_and_methods(capsys):
    code, out, _ = run(capsys, "envs", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found["environments"]) == set(envs.IDS | envs.FADING_IDS)
    assert found["environments"]["SemCom/CRRAUS-v0"]["default_preset"] == "select"
    assert found["environments"]["SemCom/CRRAUS-v0"]["action"] == [40]
    assert "fast" in found["problems"]["crra"]["methods"]
    assert found["environments"]["SemCom/SFMA-v0"]["pair_blocks"] == ["pairing"]
    assert found["environments"]["SemCom/SFMAPairing-v0"]["choices"] == 45
    assert found["problems"]["sfma"]["transceivers"]["fdma"] == "SwinJSCC+OMA"
    assert found["problems"]["crra"]["transceivers"] == {}
    code, out, _ = run(capsys, "envs")
    assert code == 0
    assert all(env_id in out for env_id in envs.IDS)
    assert "75  pairing (per pair), power, bandwidth, ratio" in out
    assert "1 of 45  a pair per step" in out
    marked = {line.split()[1] for line in out.splitlines() if line.startswith("  * ")}
    assert marked == {"noma", "fdma", "deepjscc_noma", "bpg_ldpc_qam", "zf_wf_bpg", "zf_wf_djscc", "another"}


def test_help_and_envs_import_nothing_heavy():
    code = (
        "import sys; from semcom_gym.benchmarks import cli; assert cli.main(['envs']) == 0\n"
        f"assert not set({HEAVY}) & set(sys.modules), set({HEAVY}) & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


# --- solve ---------------------------------------------------------------------------------------------------------


def test_solve_prints_what_the_solver_found(capsys):
    code, out, _ = run(capsys, "solve", "SemCom/CRRA-v0", "--method", "fra", "-n", 3, "--json")
    found = json.loads(out)
    problem = envs.problem("crra")
    params = problem.preset("default")
    expected = crra.heuristics.fra(params, problem.sample_split(params, "test", 3))
    assert code == 0
    np.testing.assert_allclose(found["objective"], expected.objective, rtol=1e-12)
    code, out, _ = run(capsys, "solve", "SemCom/CRRA-v0", "--method", "fra", "-n", 3)
    assert code == 0
    assert f"{expected.objective.mean():.6g}" in out


def test_solve_takes_seed_preset_and_parameters(capsys):
    arguments = ("solve", "SemCom/CRRA-v0", "--preset", "hard", "--method", "fra", "-n", 2, "--seed", 7, "--json")
    _, out, _ = run(capsys, *arguments, "--set", "num_users=3", "--set", "curves=vgg_0db")
    problem = envs.problem("crra")
    params = problem.preset("hard", num_users=3, curves="vgg_0db")
    expected = crra.heuristics.fra(params, problem.sample(params, np.random.default_rng(7), 2))
    np.testing.assert_allclose(json.loads(out)["objective"], expected.objective, rtol=1e-12)


def test_solve_shows_what_a_sum_rate_hides(capsys):
    arguments = ("--method", "equal", "-n", 2, "--set", "num_users=4")
    code, out, _ = run(capsys, "solve", "SemCom/SFMAPairing-v0", *arguments, "--json")
    terms = json.loads(out)["terms"]
    assert code == 0
    assert set(terms) == {"min_rate_mbit_s", "images_per_s"}
    code, out, _ = run(capsys, "solve", "SemCom/SFMA-v0", *arguments)
    assert code == 0
    assert f"{terms['min_rate_mbit_s'][1]:.4g}" in out
    assert "images_per_s" in out


def test_solve_says_whose_rate_another_transceivers_is(capsys):
    arguments = ("solve", "SemCom/SFMA-v0", "--method", "fdma", "-n", 2)
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "the objective is that of another transceiver, SwinJSCC+OMA" in out
    assert json.loads(run(capsys, *arguments, "--json")[1])["terms"] == {}


def test_solve_writes_a_trace_for_tensorboard(capsys, folder):
    pytest.importorskip("cvxpy")
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    arguments = ("solve", "SemCom/CRRA-v0", "--method", "crra", "-n", 1, "--set", "num_users=3")
    code, out, _ = run(capsys, *arguments, "--trace", "log", "--json")
    assert code == 0
    (run_folder,) = (folder / "log").iterdir()
    events = reading.EventAccumulator(str(run_folder)).Reload()
    values = [event.value for event in events.Scalars("solver/objective")]
    assert len(values) > 1
    assert values[-1] == pytest.approx(json.loads(out)["objective"][0], rel=1e-3)


# --- benchmark -----------------------------------------------------------------------------------------------------


def test_benchmark_writes_every_format_and_resumes(capsys, folder):
    arguments = ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "fra", "fast", "--agent", "-n", 8)
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "fast" in out
    names = {path.suffix for path in (folder / "results/benchmark").iterdir()}
    assert names == {".md", ".csv", ".json", ".png"}
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "results/cells").iterdir()}
    code, out, _ = run(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["method"] for row in found["leaderboards"][0]["rows"]] == ["fast", "fra"]
    assert stamps == {path: path.stat().st_mtime_ns for path in (folder / "results/cells").iterdir()}


def test_benchmark_proves_the_bounds_it_ships(capsys, folder):
    code, out, _ = run(capsys, "benchmark", "--env", "SemCom/CRRA-v0", "--prove", "-n", 4, "--json")
    file = folder / "bounds/crra_default.json"
    assert code == 0
    assert json.loads(out)["proofs"][0]["file"] == str(file)
    assert json.loads(file.read_text())["command"].endswith("--prove --env SemCom/CRRA-v0 --preset default -n 4")


def test_benchmark_of_both_sfma_ids_leaves_other_transceivers_out(capsys, folder, monkeypatch):
    chosen = {name: sfma.METHODS[name] for name in ("equal", "fast", "fdma")}
    monkeypatch.setattr(sfma, "METHODS", chosen)
    arguments = ("benchmark", "--env", "SemCom/SFMA-v0", "SemCom/SFMAPairing-v0", "--agent", "-n", 2)
    code, out, err = run(capsys, *arguments, "--set", "num_users=4", "--json")
    boards = json.loads(out)["leaderboards"]
    assert (code, err) == (0, "")
    assert [{row["method"] for row in board["rows"]} for board in boards] == [{"equal", "fast"}] * 2
    # the action map hands out what the solver leaves of the budgets
    ours, theirs = ([row["score"] for row in board["rows"]] for board in boards)
    assert ours[0]["value"] == pytest.approx(theirs[0]["value"], rel=1e-4)


def test_methods_that_are_not_for_an_environment_are_named_and_left_out(capsys, folder, monkeypatch):
    pytest.importorskip("cvxpy")
    chosen = {name: crra.METHODS[name] for name in ("fra", "crraus")}
    monkeypatch.setattr(crra, "METHODS", chosen)
    code, out, err = run(capsys, "benchmark", "--env", "SemCom/CRRA-v0", "--agent", "-n", 4, "--json")
    assert code == 0
    assert [row["method"] for row in json.loads(out)["leaderboards"][0]["rows"]] == ["fra"]
    assert "left out on CRRA-v0 default: crraus: crraus needs selection=True" in err


def test_interruption_keeps_finished_work_and_says_so(capsys, folder, monkeypatch):
    fra = crra.METHODS["fra"]
    calls = []

    def slow(params, instance):
        calls.append(len(instance))
        if len(calls) == 2:  # the first call is the check before the work
            raise KeyboardInterrupt
        return fra.run(params, instance)

    monkeypatch.setitem(crra.METHODS, "slow", Method(slow, "slow", "test"))
    arguments = ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "equal", "slow", "--agent", "-n", 5, "--single", 0)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (130, "")
    assert err == "semcom-gym: interrupted; 2 finished cell(s) are kept in results/cells; " + (
        "the same command goes on from there\n"
    )
    code, _, _ = run(capsys, *arguments)
    assert code == 0
    assert calls == [1, 5, 1, 5]


# --- train ---------------------------------------------------------------------------------------------------------


def test_train_then_benchmark_over_seeds(capsys, folder):
    pytest.importorskip("stable_baselines3")
    train = ("train", "--env", "SemCom/CRRA-v0", "--timesteps", 32, "--num-envs", 16, "--set", "num_users=3")
    for seed in (0, 1):
        code, out, _ = run(capsys, *train, "--seed", seed, "--out", f"runs/{seed}", "--json")
        assert code == 0
        assert json.loads(out)["seed"] == seed
    bench = ("benchmark", "--method", "fra", "--agent", "pair=runs/0,runs/1", "-n", 5, "--set", "num_users=3")
    code, out, _ = run(capsys, *bench, "--env", "SemCom/CRRA-v0", "--json")
    assert code == 0
    (agent,) = [row for row in json.loads(out)["leaderboards"][0]["rows"] if row["kind"] == "agent"]
    assert (agent["method"], agent["n"], agent["feasible"]) == ("pair", 10, 1.0)
    mistakes = {
        "holds a training run": (*train, "--seed", 0, "--out", "runs/0"),
        "was made with seed 0, not 1": (*train, "--seed", 1, "--out", "runs/0", "--resume"),
        "is for SemCom/CRRA-v0, not for SemCom/CRRAUS-v0": (*bench, "--env", "SemCom/CRRAUS-v0"),
    }
    for message, arguments in mistakes.items():
        code, _, err = run(capsys, *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    (folder / "runs/1/model.zip").write_bytes(b"PK")
    code, _, err = run(capsys, *bench, "--env", "SemCom/CRRA-v0")
    assert code == 2
    assert "agent file 'runs/1/model.zip' is missing or corrupt" in err


# --- mistakes and faults -------------------------------------------------------------------------------------------

SOLVE = ("solve", "SemCom/CRRA-v0", "--method", "fra")
MISTAKES = {
    "no command": ((), "the following arguments are required: COMMAND"),
    "command": (("slove",), "invalid choice: 'slove'"),
    "option": ((*SOLVE, "--presett", "x"), "unrecognized arguments: --presett x"),
    "id": (
        ("solve", "SemCom/CRAR-v0", "--method", "fra"),
        "unknown environment id 'SemCom/CRAR-v0'; valid: SemCom/CRRA",
    ),
    "other id": (("solve", "CartPole-v1", "--method", "fra"), "unknown environment id 'CartPole-v1'"),
    "preset": ((*SOLVE, "--preset", "defualt"), "unknown crra preset 'defualt'; valid: default, paper"),
    "method": (("solve", "SemCom/CRRA-v0", "--method", "fat"), "unknown crra method 'fat'; valid: equal, fra"),
    "method of the other id": (
        ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "crraus"),
        "crraus needs selection=True",
    ),
    "field": ((*SOLVE, "--set", "users=3"), "unknown argument 'users'; valid: num_users"),
    "no field": ((*SOLVE, "--set", "users"), "--set needs FIELD=VALUE, got 'users'"),
    "value": ((*SOLVE, "--set", "max_power_w=-1"), "max_power_w must be finite, > 0, got -1"),
    "type": ((*SOLVE, "--set", "num_users=many"), "num_users must be an integer, got 'many'"),
    "curve": ((*SOLVE, "--set", "curves=vgg"), "unknown crra curve 'vgg'; valid: measured_resnet_0db"),
    "curve file": ((*SOLVE, "--set", "curves=no.json"), "curve file 'no.json' cannot be read: No such file"),
    "floors": ((*SOLVE, "--set", "min_bandwidth_hz=1e6"), "min_bandwidth_hz 1e+06 for 10 user(s) exceeds the budget"),
    "split": ((*SOLVE, "--split", "tset"), "unknown split 'tset'; valid: train, validation, test"),
    "count": ((*SOLVE, "-n", "0"), "n must be >= 1, got 0"),
    "no number": ((*SOLVE, "-n", "many"), "invalid int value: 'many'"),
    "seed": ((*SOLVE, "--seed", "-1"), "--seed must be >= 0, got -1"),
    "agent": (
        ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "--agent", "xyz"),
        "unknown algorithm 'xyz'; valid: apg",
    ),
    "agent file": (
        ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "--agent", "a=missing"),
        "'missing' holds no training run",
    ),
    "nobody": (("benchmark", "--env", "SemCom/CRRA-v0", "--method", "--agent"), "nothing to score on CRRA-v0 default"),
    "other transceiver": (
        ("benchmark", "--env", "SemCom/SFMA-v0", "--method", "equal", "noma"),
        "sfma method 'noma' is not scored: it stands for another transceiver, SwinJSCC+NOMA",
    ),
    "bounds of a variant": (("benchmark", "--prove", "--set", "num_users=4"), "drop --set and --split"),
    "device": (("speed", "--device", "gpu"), "device 'gpu' cannot be used"),
    "group": (("speed", "--only", "vectors"), "unknown group 'vectors'; valid: scalar, vector, solver, agent"),
    "paper": (("figures", "cra"), "unknown paper 'cra'; valid: crra, sfma"),
    "option of another paper": (("figures", "sfma", "--success", "exact"), "figures sfma: unknown argument 'success'"),
    "option of the other paper": (("figures", "crra", "--slow", "3"), "figures crra: unknown argument 'slow'"),
    "calibration": (("figures", "sfma", "--preset", "tigt"), "unknown sfma preset 'tigt'; valid: default, paper"),
    "slow": (("figures", "sfma", "--slow", "0"), "--slow must be >= 1, got 0"),
    "figure": (("figures", "crra", "--only", "3"), "unknown figure 3; valid: 4, 5"),
    "success": (("figures", "crra", "--success", "exactly"), "unknown success model 'exactly'; valid: exact, approx"),
    "algorithm": (("train", "--env", "SemCom/CRRA-v0", "--algo", "dqn"), "unknown algorithm 'dqn'; valid: apg"),
    "train device": (("train", "--env", "SemCom/CRRA-v0", "--device", "gpu"), "device 'gpu' cannot be used"),
    "folder": (
        ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "fra", "--agent", "--cells", "file/x"),
        "cannot make",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, folder, name):
    arguments, message = MISTAKES[name]
    if name in ("agent", "agent file", "device", "algorithm", "train device"):
        pytest.importorskip("stable_baselines3")
    (folder / "file").write_text("")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("semcom-gym: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_corrupt_result_file_is_named(capsys, folder):
    arguments = ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "fra", "--agent", "-n", 4)
    assert run(capsys, *arguments)[0] == 0
    file = next((folder / "results/cells").glob("*fra*"))
    file.write_text(file.read_text()[:40])
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert f"result file 'results/cells/{file.name}' is corrupt" in err
    assert "delete it and run again" in err


def test_a_missing_package_is_named(capsys, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    code, _, err = run(capsys, "solve", "SemCom/CRRA-v0", "--method", "crra")
    assert code == 2
    assert err == "semcom-gym: error: method 'crra' needs cvxpy: pip install 'semcom-gym[solvers]'\n"


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("bug"), TypeError("bug"), KeyError("bug")])
def test_a_fault_is_no_mistake_of_the_user(folder, monkeypatch, error):
    monkeypatch.setitem(crra.METHODS, "bad", failing(error))
    with pytest.raises(type(error), match="bug"):
        cli.main(["solve", "SemCom/CRRA-v0", "--method", "bad"])


def test_a_fault_in_a_process_has_a_traceback_and_exit_code_1(tmp_path):
    code = (
        "import sys; from semcom_gym.baselines import crra; from semcom_gym.benchmarks import cli\n"
        "crra.METHODS['fra'] = crra.METHODS['fra'].__class__(lambda p, i: None + 1, 'bug', 'test')\n"
        "sys.exit(cli.main(['solve', 'SemCom/CRRA-v0', '--method', 'fra']))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 1
    assert "Traceback" in found.stderr
    assert "TypeError" in found.stderr


def test_only_errors_that_the_package_words_are_the_users():
    with pytest.raises(errors.UserError, match="unknown problem 'x'"), errors.user_input():
        envs.problem("x")
    with pytest.raises(TypeError), errors.user_input():
        envs.problem("crra").preset()  # a call with too few arguments, not a `raise`
    with pytest.raises(ValueError, match="could not"), errors.user_input():
        float("x")
