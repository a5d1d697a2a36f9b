"""The grammar of the command line, on top of argparse: options before the verb, the verb, and what is the verb's own.

What does not hold is a UsageError of one sentence. Options may stand anywhere among the arguments of their verb, but
for those of a command: all behind ``reply --exec``, and behind the first word of ``run`` that is no option.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, final

from .outcome import UsageError
from .output import write
from .verbs import EXEC, VERBS, add_address

__all__ = ["parse_arguments"]

_EXIT_CODES = """\
exit codes: 0 done, 1 failed (quietly when the reader of standard output has gone), 2 usage, 130 Ctrl-C (0 for broker);
run has those of its command.
The address is --address, else $SOCKBUS_ADDRESS, else unix:$XDG_RUNTIME_DIR/sockbus, else unix:/tmp/sockbus-UID."""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What the arguments say, in a namespace with ``verb`` and ``address`` (None where none was named).

    Raises UsageError, and SystemExit with 0 after --help and --version.
    """
    top = _top_parser()
    # By hand, for argparse's own subparsers take no option between two arguments of a verb.
    at = _first_word(argv, "--address")
    chosen = top.parse_args(argv[: at + 1])
    own, words = list(argv[at + 1 :]), []
    if EXEC in own and chosen.verb == "reply":
        # What is behind it is the command's, also a `--`, where argparse's REMAINDER would stop.
        words = own[own.index(EXEC) + 1 :]
        del own[own.index(EXEC) + 1 :]
    elif chosen.verb == "run":
        at = _first_word(own, "--limit")
        own, words = [option for option in own[:at] if option != "--"], own[at:]
    namespace = argparse.Namespace(verb=chosen.verb, words=words, address=None)
    parser = _verb_parser(chosen.verb)
    parser.parse_intermixed_args(own, namespace)
    if chosen.verb == "run":
        if chosen.address is not None:
            parser.error("run has a bus of its own: leave out --address, or put it behind COMMAND if it is for that")
        if not words or not words[0]:
            parser.error("there is no COMMAND")
    namespace.address = namespace.address or chosen.address
    return namespace


def _first_word(argv: Sequence[str], valued: str) -> int:
    """Where the first word stands that is neither an option nor the value of one, or is behind a `--`."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        if argv[at] == "--":
            return at + 1
        at += 2 if argv[at] == valued else 1
    return at


def _unmeasured(prog: str) -> argparse.HelpFormatter:
    # argparse asks one about each argument that is added, and each would ask the terminal for its width: by shutil,
    # which takes as long to load as argparse.
    return argparse.RawDescriptionHelpFormatter(prog, width=80)


@final
class _Parser(argparse.ArgumentParser):
    """argparse, but complaints are one sentence and output leaves by ``output``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_unmeasured, allow_abbrev=False, add_help=False, **options)
        self.add_argument("-h", "--help", action=_Show, text=self.format_help, help="show this and exit")

    def format_help(self) -> str:
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


@final
class _Show(argparse.Action):
    """An option that prints a text and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, text: Callable[[], str], help: str) -> None:  # noqa: A002
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self._text = text

    def __call__(self, *_: object) -> None:
        write(self._text().encode())
        raise SystemExit(0)


def _top_parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:<9} {verb.summary}" for name, verb in VERBS.items())
    parser = _Parser(
        prog="sockbus",
        usage="sockbus [--address ADDRESS] VERB ...",
        description=f"A message bus for the processes of one machine.\n\nverbs:\n{verbs}",
        epilog=f"`sockbus VERB --help` has an example each.\n{_EXIT_CODES}",
    )
    parser.add_argument("verb", metavar="VERB", choices=VERBS, help=argparse.SUPPRESS)
    add_address(parser)
    parser.add_argument("--version", action=_Show, text=_version, help="show the version and exit")
    return parser


def _verb_parser(name: str) -> argparse.ArgumentParser:
    verb = VERBS[name]
    parser = _Parser(
        prog=f"sockbus {name}",
        usage=verb.usage,
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog="\n\n".join(filter(None, (verb.details, f"example:\n  {verb.example}"))),
    )
    verb.add_arguments(parser)
    if name != "run":
        add_address(parser)
    return parser


def _version() -> str:
    # Only for who asks: it reads the file system.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"sockbus {version('sockbus')}\n"
    except PackageNotFoundError:
        return "sockbus (not installed, so of no known version)\n"
