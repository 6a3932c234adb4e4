"""The command ``semcom-gym``.

Exit code 0: done; 1: a fault of the package, with a traceback; 2: a mistake in the arguments or in a file that they
name, in one line; 130: interrupted with Ctrl-C, with one line on what was kept.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from semcom_gym import __version__
from semcom_gym.benchmarks import (
    commands_bench,
    commands_codes,
    commands_dataset,
    commands_env,
    commands_generalise,
    commands_render,
    commands_report,
    commands_rounds,
    commands_ship,
    commands_speed,
    commands_transceivers,
    commands_tune,
    store,
)
from semcom_gym.benchmarks.errors import UserError, user_input

EPILOG = """examples:
  semcom-gym envs                                    what there is
  semcom-gym solve SemCom/CRRA-v0 --method fast      ask a solver
  semcom-gym benchmark --env SemCom/CRRA-v0          a leaderboard against the certified optimum
  semcom-gym COMMAND --help                          every option of a command, with an example"""


class _Parser(argparse.ArgumentParser):
    """argparse with errors in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see: {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """The command line of all subcommands."""
    top = _Parser(
        prog="semcom-gym",
        description="Environments, certified baselines and agents for semantic-communication resource allocation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"semcom-gym {__version__}")
    subparsers = top.add_subparsers(metavar="COMMAND", required=True)
    commands_env.add_to(subparsers)
    commands_dataset.add_to(subparsers)
    commands_tune.add_to(subparsers)
    commands_bench.add_to(subparsers)
    commands_generalise.add_to(subparsers)
    commands_speed.add_to(subparsers)
    commands_ship.add_to(subparsers)
    commands_transceivers.add_to(subparsers)
    commands_codes.add_to(subparsers)
    commands_rounds.add_to(subparsers)
    commands_render.add_to(subparsers)
    commands_report.add_to(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Faults of the package pass through as exceptions."""
    job = None
    try:
        given = sys.argv[1:] if arguments is None else arguments
        args = parser().parse_args(given)
        args.line = shlex.join(["semcom-gym", *given])
        with user_input():
            job = args.prepare(args)
        result = job.run()
        print(store.dumps(result, indent=1) if args.json else job.show(result))
        sys.stdout.flush()
    except UserError as error:
        print(f"semcom-gym: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = job.kept() if job else "nothing was written"
        print(f"semcom-gym: interrupted; {kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
