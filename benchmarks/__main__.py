"""``python -m benchmarks``: see the package's docstring."""

from __future__ import annotations

import argparse
import functools
import os
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import benchmarks

from . import cli, fds, latency, runtimes, throughput
from .endurance.endure import endure
from .process import PATIENCE, BenchmarkError, end_on_signals
from .programs import RUNTIMES
from .rounds import Effort

_ALL = ("seqpacket", "stream", "tcp")
_UNIX = ("seqpacket", "stream")
_ROUNDS = 5
# The runtimes share most of what they do, and a few hundredths tell them apart.
_ROUNDS_OF_EQUALS = 40
# One run of a program is a short turn.
_ROUNDS_OF_PROGRAMS = 21
# Half of what is waited for one answer.
MAX_SECONDS = PATIENCE / 2

Measure = Callable[[Sequence[str], Sequence[str], Sequence[str], Effort], None]
Run = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, {MAX_SECONDS:g} at most")
    return seconds


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks",
        description=benchmarks.__doc__,
        epilog="example: python -m benchmarks throughput --transports stream --rounds 9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(
        metavar="throughput|latency|fds|runtimes|cli|endurance", required=True, parser_class=_Parser
    )
    _verb(verbs, "throughput", "messages a second", throughput.measure, _ALL, throughput.CASES)
    _verb(verbs, "latency", "sequential requests", latency.measure, _ALL, latency.CASES)
    _verb(verbs, "fds", "messages that carry file descriptors", fds.measure, _UNIX, fds.CASES)
    _verb(
        verbs, "runtimes", "asyncio and blocking", runtimes.measure, _ALL, runtimes.CASES, RUNTIMES, _ROUNDS_OF_EQUALS
    )
    _verb(verbs, "cli", "sockbus pub, from start to end", cli.measure, _ALL, cli.CASES, rounds=_ROUNDS_OF_PROGRAMS)
    about = "processes killed, stopped and restarted at random, and a verdict"
    verb = verbs.add_parser("endurance", help=about, description=f"endurance: {about}; exit code 1 when it is bad")
    verb.set_defaults(run=_endure)
    verb.add_argument("--minutes", type=_minutes, default=1.0, metavar="N", help="in all (%(default)s)")
    verb.add_argument("--seed", type=int, metavar="N", help="of what is done at random; another one each time")
    verb.add_argument("--transports", nargs="+", choices=_ALL, default=_ALL, metavar="NAME", help=", ".join(_ALL))
    return parser


def _verb(
    verbs: argparse._SubParsersAction[_Parser],
    name: str,
    about: str,
    measure: Measure,
    transports: Sequence[str],
    cases: Iterable[str],
    runtimes: Sequence[str] = ("trio",),
    rounds: int = _ROUNDS,
) -> None:
    verb = verbs.add_parser(name, help=about, description=f"{name}: {about}, beside a reference")
    verb.set_defaults(run=functools.partial(_measure, measure))
    verb.add_argument("--seconds", type=_seconds, default=0.25, metavar="S", help="of one turn (%(default)s)")
    verb.add_argument("--rounds", type=_positive, default=rounds, metavar="N", help="turns of each side (%(default)s)")
    verb.add_argument("--messages", type=_positive, default=0, metavar="N", help="in one turn, instead of --seconds")
    for option, known, default in (
        ("--transports", transports, transports),
        ("--cases", list(cases), list(cases)),
        ("--runtimes", RUNTIMES, runtimes),
    ):
        names = ", ".join(known) if default == known else f"{', '.join(known)} ({', '.join(default)})"
        verb.add_argument(option, nargs="+", choices=known, default=default, metavar="NAME", help=names)


def _measure(measure: Measure, options: argparse.Namespace) -> int:
    measure(
        options.transports, options.cases, options.runtimes, Effort(options.rounds, options.seconds, options.messages)
    )
    return 0


def _endure(options: argparse.Namespace) -> int:
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    return endure(options.transports, options.minutes, seed)


def main() -> int:
    """The exit code: 0 measured, 1 failed or broken, 2 usage; 130 and 143 by SIGINT and SIGTERM."""
    options = _parser().parse_args()
    end_on_signals()
    try:
        run: Run = options.run
        return run(options)
    except BrokenPipeError:
        # Whoever read the table has gone; so that the interpreter does not fail to flush it once more:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
