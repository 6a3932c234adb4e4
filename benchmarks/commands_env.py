"""``semcom-gym envs``, ``solve`` and ``train``."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import protocol, table
from semcom_gym.benchmarks.commands import Job, add, instances, learner, parse_overrides, parse_varied, varied
from semcom_gym.benchmarks.errors import user_input
from semcom_gym.benchmarks.store import make_folder
from semcom_gym.envs import validate


def add_to(commands: Any) -> None:
    """Add the three subcommands."""
    add(commands, "envs", _envs, "list environments, presets, spaces and methods", "  semcom-gym envs --json")
    solve = add(
        commands, "solve", _solve, "solve instances of an environment by a method and score the decisions",
        "  semcom-gym solve SemCom/CRRA-v0 --preset hard --method fast -n 100\n"
        "  semcom-gym solve SemCom/CRRA-v0 --method crra -n 5 --trace runs/crra   then: tensorboard --logdir runs",
    )  # fmt: skip
    solve.add_argument("env", help="environment id, as listed by: semcom-gym envs")
    solve.add_argument("--preset", help="parameters of the environment (default: the id's own)")
    solve.add_argument("--method", required=True, help="solver, as listed by: semcom-gym envs")
    instances(solve, 10)
    solve.add_argument("--seed", type=int, help="draw the instances from this seed instead of from a split")
    solve.add_argument("--trace", metavar="DIR", help="write the objective after each iteration for TensorBoard")
    train = add(
        commands, "train", _train, "train an agent; the best model by the validation split is kept",
        "  semcom-gym train --env SemCom/CRRA-v0 --algo apg --timesteps 200000 --seed 0\n"
        "  semcom-gym train --env SemCom/CRRA-v0 --vary num_users=5,10,20 --vary max_bandwidth_hz=2.5e6,5e6,10e6\n"
        "  tensorboard --logdir runs\n\n"
        "After Ctrl-C, the same command with --resume goes on from the last checkpoint.",
    )  # fmt: skip
    learner(train)
    varied(train)
    train.add_argument(
        "--algo", default="apg",
        help="apg, bc, dagger, ppo, a2c, sac, tqc or td3; for actions that are choices, maskable_ppo, bc or dagger; "
        "for Fading ids apg, ppo or recurrent_ppo (default: %(default)s)",
    )  # fmt: skip
    train.add_argument("--expert", help="of bc and dagger: the solver to imitate (default: that of the algorithm)")
    train.add_argument("--dataset", help="of bc: the Minari data set to learn from, in place of a solver's answers")
    train.add_argument("--patience", type=int, help="end after this many validations without a better one")
    train.add_argument("--seed", type=int, default=0, help="seed of weights and instances (default: %(default)s)")
    train.add_argument("--out", help="folder of the run (default: runs/ID_PRESET_ALGO_seedSEED)")
    train.add_argument("--tensorboard", metavar="DIR", help="folder of the log (default: inside the run's folder)")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")


# --- envs ----------------------------------------------------------------------------------------------------------


def _envs(args: argparse.Namespace) -> Job:
    return Job(_list, _show_list)


def _list() -> dict[str, Any]:
    ids, problems = {}, {}
    for env_id in envs.IDS | envs.FADING_IDS:
        env = protocol.make_vector(env_id, 1).unwrapped
        problems[env.problem.name] = env.problem
        ids[env_id] = {
            "problem": env.problem.name,
            "default_preset": envs.default_preset(env_id),
            "observation": list(env.single_observation_space.shape),
            "action": list(env.single_action_space.shape),
            "choices": int(env.single_action_space.n) if protocol.is_stepwise(env) else None,
            "action_blocks": list(env.action_layout.blocks),
            "pair_blocks": list(env.action_layout.pair_blocks),
        }
    rooms = {
        name: {
            "paper": problem.paper,
            "objective": problem.objective,
            "maximise": problem.maximise,
            "presets": sorted(problem.PRESETS),
            "methods": baselines.methods(name),
            "transceivers": _transceivers(name),
            "anchor": baselines.anchor(name),
        }
        for name, problem in problems.items()
    }
    return {"environments": ids, "problems": rooms}


def _transceivers(problem: str) -> dict[str, str]:
    """The methods that stand for another transceiver -> which one."""
    found = {name: baselines.solution.transceiver(problem, name) for name in baselines.methods(problem)}
    return {name: other for name, other in found.items() if other is not None}


def _show_list(found: dict[str, Any]) -> str:
    rows = [
        [env_id, entry["default_preset"], str(entry["observation"][0]), *_action(entry)]
        for env_id, entry in found["environments"].items()
    ]
    parts = [table.aligned(["id", "preset", "observation", "action", "blocks of the action"], rows, left=(0, 1, 4))]
    for name, room in found["problems"].items():
        width = max(map(len, room["methods"]))
        goal = "maximise" if room["maximise"] else "minimise"
        lines = [f"{name}: {room['paper']}", f"  {goal} {room['objective']}"]
        others = room["transceivers"]
        lines += [
            f"  presets: {', '.join(room['presets'])}",
            "  methods:",
            *(f"  {'*' if name in others else ' '} {name:<{width}}  {what}" for name, what in room["methods"].items()),
        ]
        lines += ["  * another transceiver: its objective is its own, not scored by benchmark"] if others else []
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _action(entry: dict[str, Any]) -> tuple[str, str]:
    """How large an action is, and what it says."""
    if entry["choices"]:
        return f"1 of {entry['choices']}", f"a {entry['pair_blocks'][0]} per step"
    blocks = [*(f"{block} (per pair)" for block in entry["pair_blocks"]), *entry["action_blocks"]]
    return str(entry["action"][0]), ", ".join(blocks)


# --- solve ---------------------------------------------------------------------------------------------------------


def _solve(args: argparse.Namespace) -> Job:
    changes = parse_overrides(args.overrides)
    task = protocol.task(args.env, args.preset, n=args.instances, split=args.split, **changes)
    protocol.check_method(task, args.method)
    instance = task.instance
    if args.seed is not None:
        validate.integer("--seed", args.seed, low=0)
        instance = task.problem.sample(task.params, np.random.default_rng(args.seed), args.instances)
    if args.trace:
        import semcom_gym.agents  # noqa: F401  says which package is missing

        make_folder(args.trace)
    return Job(lambda: _run_solve(task, instance, args), _show_solution)


def _run_solve(task: protocol.Task, instance: Any, args: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    found = baselines.solve(task.problem.name, task.params, instance, args.method)
    seconds = time.perf_counter() - started
    if args.trace:
        from semcom_gym import agents

        agents.log_solution(args.trace, task.problem.name, args.method, found)
    source = f"seed {args.seed}" if args.seed is not None else f"{args.split} split"
    return {
        "env": task.env_id, "preset": task.preset, "method": args.method, "instances": source, "seconds": seconds,
        "transceiver": baselines.solution.transceiver(task.problem.name, args.method),
        "objective": found.objective, "feasible": found.feasible, "seconds_per_decision": found.seconds,
        "iterations": found.iterations, "status": found.status,
        "terms": protocol.totals(task.problem, task.params, instance, args.method, found),
    }  # fmt: skip


def _show_solution(found: dict[str, Any]) -> str:
    feasible = np.asarray(found["feasible"])
    terms = found["terms"]
    rows = [
        [str(i), f"{found['objective'][i]:.6g}", *(f"{value[i]:.4g}" for value in terms.values()),
         "yes" if feasible[i] else "no", str(int(found["iterations"][i])),
         f"{1e3 * found['seconds_per_decision'][i]:.3g}", found["status"][i]]
        for i in range(len(feasible))
    ]  # fmt: skip
    mean = np.mean(np.asarray(found["objective"])[feasible]) if feasible.any() else float("nan")
    header = ["instance", "objective", *terms, "feasible", "iterations", "ms", "status"]
    other = f"; the objective is that of another transceiver, {found['transceiver']}"
    return (
        f"{table.aligned(header, rows, left=(len(header) - 1,))}\n\n"
        f"{found['env']} {found['preset']}, {found['method']}, {found['instances']}: mean objective {mean:.6g} over "
        f"{int(feasible.sum())} feasible of {len(feasible)} instances, "
        f"{1e3 * found['seconds'] / len(feasible):.3g} ms each{other if found['transceiver'] else ''}"
    )


# --- train ---------------------------------------------------------------------------------------------------------


def _train(args: argparse.Namespace) -> Job:
    changes = parse_overrides(args.overrides)
    protocol.check_made(args.env, args.preset, **changes)
    from semcom_gym import agents  # says which package is missing

    validate.choice("algorithm", args.algo, agents.ALGORITHMS)
    vary = parse_varied(args.vary)
    folder = args.out or f"runs/{agents.records.name_of_run(args.env, args.algo, args.preset, args.seed, vary)}"
    names = ("preset", "timesteps", "num_envs", "seed", "device", "tensorboard", "resume")
    options = {name: getattr(args, name) for name in names} | changes
    settings = {name: value for name in ("expert", "dataset", "patience") if (value := getattr(args, name)) is not None}
    if args.expert is not None and args.algo not in ("bc", "dagger"):
        raise ValueError(f"--expert is for --algo bc or dagger, not {args.algo!r}")
    if args.dataset is not None and (args.algo != "bc" or args.expert is not None):
        raise ValueError("--dataset is for --algo bc, in place of --expert")
    options |= {"hyperparams": settings, "vary": vary}

    def kept() -> str:
        if not (Path(folder) / "checkpoint.zip").exists():
            return "there was no checkpoint yet"
        return f"the last checkpoint is kept in {folder}; the same command with --resume goes on from there"

    return Job(lambda: _run_train(args.env, args.algo, folder, options), _show_run, kept)


def _run_train(env_id: str, algo: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
    from semcom_gym.agents import train

    with user_input(), contextlib.redirect_stdout(sys.stderr):  # train checks its arguments and the run's folder
        run = train(env_id, algo, out=folder, **options)
    if not run.record["finished"]:
        raise KeyboardInterrupt
    return {"folder": folder, "log": options["tensorboard"] or folder, **run.record}


def _show_run(found: dict[str, Any]) -> str:
    best = ", ".join(f"{name} {value:.6g}" for name, value in found["best"].items())
    return (
        f"{found['env_id']} {found['preset']}, {found['algo']}, seed {found['seed']}: best on validation: {best}\n"
        f"model and record: {found['folder']}; to look at the log: tensorboard --logdir {found['log']}"
    )
