"""The verbs: what each takes, and what its help says.

Whatever can be judged before anything is begun is judged here: addresses, topics, numbers, names.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ..address import Address
from ..errors import SockbusError
from ..topic import check_pattern, check_topic
from .outcome import Failure, UsageError
from .payload import header

__all__ = ["EXEC", "VERBS", "Verb", "add_address"]

#: the option of ``reply`` that ends the options: the rest is ``words``
EXEC = "--exec"

_PAYLOADS = """\
PAYLOAD is JSON where it parses as JSON, else text; none at all is null. `-` reads standard input to its end (of
text, one line feed at the end is dropped). With --raw it is bytes, as they are."""
_SHOWN = """\
Text is shown as it is, bytes as b'...', all else as JSON; control characters are escaped. In JSON, bytes are
{"base64": "..."}, msgpack extensions {"ext": CODE, "base64": "..."}, floats that are no numbers the strings "NaN",
"Infinity" and "-Infinity", and what is no msgpack at all is {"msgpack": "BASE64"}. With --raw, bytes come out as they
are, text in UTF-8, all else as JSON, with nothing added, not even a line feed."""


class Verb(NamedTuple):
    """One verb: its line in the list, what --help adds, an example, and its arguments."""

    summary: str
    details: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    usage: str | None = None


# What arguments stand for


def _converter(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """For argparse: an error of ours as its own, so that it names the argument."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except (SockbusError, Failure) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def _topic(text: str) -> str:
    check_topic(text)
    return text


def _pattern(text: str) -> str:
    check_pattern(text)
    return text


def _group(text: str) -> str:
    if not 0 < len(os.fsencode(text)) <= 255 or not text.isprintable():
        raise UsageError(f"{text!r} is not a name of 1 to 255 bytes of printable text")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
        raise UsageError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _fd_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 2):
        raise UsageError(f"{text!r} is not the number of a file descriptor above 2")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{text!r} is not a number of seconds above 0")
    return seconds


# The verbs


def add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        type=_converter(Address.parse),
        metavar="ADDRESS",
        help="the bus: unix:DIR, seqpacket:PATH, stream:PATH or tcp:HOST:PORT",
    )


def _add_payload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", metavar="TOPIC", type=_converter(_topic))
    parser.add_argument("payload", metavar="PAYLOAD", nargs="?")
    parser.add_argument(
        "--fd", metavar="PATH", action="append", default=[], help="open PATH for reading and pass it; may be repeated"
    )


def _broker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "addresses",
        metavar="ADDRESS",
        nargs="*",
        type=_converter(Address.parse),
        help="where to listen, instead of at the file's addresses or the default one",
    )
    parser.add_argument("--limit", metavar="NAME=VALUE", action="append", default=[], help="set a limit")
    parser.add_argument(
        "--ready-fd", metavar="N", type=_converter(_fd_number), help="write `ready` to this descriptor once all listen"
    )
    parser.add_argument(
        "--lifeline-fd", metavar="N", type=_converter(_fd_number), help="stop once nobody holds this pipe's other end"
    )
    parser.add_argument("--config", metavar="FILE", help="TOML: addresses = [...], insecure_tcp, and a table [limits]")
    parser.add_argument("--insecure-tcp", action="store_true", help="let tcp: listen on other than loopback")


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", metavar="NAME=VALUE", action="append", default=[], help="set a limit of the broker")


def _pub(parser: argparse.ArgumentParser) -> None:
    _add_payload(parser)
    parser.add_argument(
        "--header",
        metavar="K=V",
        type=_converter(header),
        action="append",
        default=[],
        help="V is a JSON number, boolean or string, else text; may be repeated",
    )
    parser.add_argument("--receipt", action="store_true", help="wait for and print what became of the message")
    parser.add_argument(
        "--retain", action="store_true", help="keep it as the last value of TOPIC, which later subscriptions begin with"
    )
    parser.add_argument("--raw", action="store_true", help="PAYLOAD is bytes")


def _sub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", type=_converter(_pattern))
    parser.add_argument("--count", metavar="N", type=_converter(_count), help="end after N messages")
    parser.add_argument("--timeout", metavar="S", type=_converter(_seconds), help="end S seconds after subscribing")
    parser.add_argument(
        "--group", metavar="G", type=_converter(_group), help="share the messages with the other members of this group"
    )
    parser.add_argument(
        "--fds",
        choices=("reject", "strip"),
        default="reject",
        help="over TCP, which carries no descriptors: lose messages that have some (and say so), or take them without",
    )
    _add_forms(parser)


def _request(parser: argparse.ArgumentParser) -> None:
    _add_payload(parser)
    parser.add_argument("--timeout", metavar="S", type=_converter(_seconds), default=5.0, help="default: 5")
    _add_forms(parser)


def _add_forms(parser: argparse.ArgumentParser) -> None:
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="one JSON object a line: the whole message")
    forms.add_argument("--raw", action="store_true", help="payloads as bytes, with nothing added")


def _reply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", type=_converter(_pattern))
    parser.add_argument("--raw", action="store_true", help="the output of CMD is bytes")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--echo", action="store_true", help="reply with the request: payload, headers and descriptors")
    how.add_argument(EXEC, action="store_true", help="run CMD with all the arguments behind it")


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object")


VERBS = {
    "broker": Verb(
        "run a broker until SIGTERM or Ctrl-C",
        """\
Prints `listening on ADDRESS` for each address once it accepts. A second signal ends it without waiting for what is
queued. --address is one more ADDRESS. Options win over the file.""",
        "sockbus broker unix:/tmp/bus tcp:127.0.0.1:7070 --limit message_bytes=1048576",
        _broker,
    ),
    "run": Verb(
        "run a command with a private broker",
        """\
The broker is there before COMMAND starts and ends when COMMAND does; for COMMAND and all that it starts,
$SOCKBUS_ADDRESS names it. All behind the word COMMAND is COMMAND's, input, output and signals too. The exit code is
COMMAND's, or 128 + N when signal N ended it, or 1 when it cannot be run.""",
        "sockbus run --limit message_bytes=1048576 -- python -m unittest -v",
        _run,
        "sockbus run [-h] [--limit NAME=VALUE] [--] COMMAND [ARGUMENT ...]",
    ),
    "pub": Verb(
        "publish a message",
        f"""\
{_PAYLOADS}
--receipt prints `matched M delivered D dropped L without_fds W`, in numbers of subscriptions. --retain without a
PAYLOAD and --fd clears the topic.""",
        """sockbus pub jobs.transcode '{"codec": "av1"}' --fd video.mkv --header priority=3""",
        _pub,
    ),
    "sub": Verb(
        "subscribe and print a line for each message",
        f"""\
Says `subscribed to PATTERN` on standard error when that is in force. A line is `TOPIC PAYLOAD [fd: KIND SIZE]...`,
and ends with [retained] where it is the last value of its topic from before the subscription.
{_SHOWN}
Lost messages are told on standard error. With --timeout and --count, fewer than N messages are a failure; so is, with
--timeout, output that nobody has read by then.""",
        "sockbus sub 'sensors.*.temp' --count 10 --json",
        _sub,
    ),
    "request": Verb(
        "ask one server of a topic and print its reply",
        f"""\
{_PAYLOADS}
{_SHOWN}""",
        "sockbus request text.upper hello --timeout 2",
        _request,
    ),
    "reply": Verb(
        "serve requests, by echo or by a command",
        """\
Says `serving PATTERN` on standard error when that is in force. CMD is run for each request, without a shell, several
at once. Its input is the payload: text in UTF-8, bytes as they are, nothing for null, all else as JSON. Its output is
the reply: JSON where it parses as JSON, else text without one line feed at its end, or bytes where it is not UTF-8.
When it fails, the requester gets a RemoteError with its last complaint.""",
        "sockbus reply text.upper --exec tr a-z A-Z",
        _reply,
        "sockbus reply [-h] [--raw] [--address ADDRESS] PATTERN (--echo | --exec CMD [ARGUMENT ...])",
    ),
    "status": Verb(
        "show the broker, its peers and its limits",
        """\
Peers, subscriptions, servers, rates per second, totals, queues, descriptors held and limits, as the broker tells them
on $SYS.status.""",
        "sockbus status --json",
        _status,
    ),
}
