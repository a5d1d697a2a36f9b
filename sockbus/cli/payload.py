"""Payloads between what people type and read and what the bus carries.

In: JSON where the text parses as JSON, else the text itself. Out, for people: text as it is, bytes as ``b'…'``, all
else as JSON. What JSON cannot say has a form of its own: bytes are ``{"base64": …}``, msgpack's extension types
``{"ext": code, "base64": …}``, floats that are no numbers the strings "NaN", "Infinity" and "-Infinity", and keys that
are no strings their JSON text. A payload that is not msgpack, which any peer may send, is ``{"msgpack": BASE64}``.
"""

from __future__ import annotations

import binascii
import dataclasses
import functools
import json
import math
import os
import select
import sys
from typing import Any, NoReturn

import msgpack

from ..errors import PayloadError
from ..message import Message, Peer
from .outcome import Failure, UsageError
from .output import complain, describe_fd, escaped

__all__ = [
    "from_output",
    "header",
    "human",
    "human_fds",
    "json_bytes",
    "json_form",
    "json_line",
    "json_text",
    "parse",
    "raw",
    "read",
    "to_bytes",
]

_STDIN = 0
# Made once: json.dumps with options makes one for each call, at twice the cost of a small payload.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def parse(text: str) -> object:
    """The payload that a text stands for."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text
    except RecursionError as error:
        raise Failure("the payload cannot be read as JSON: it is nested too deeply; send it with --raw") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is Python's, not JSON")


def header(text: str) -> tuple[str, str | int | float | bool]:
    """A header from ``K=V``: V is a JSON number, boolean or string, or else text. UsageError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} is not K=V, such as lang=en")
    found = parse(value)
    return key, found if isinstance(found, (str, int, float)) else value


def read(argument: str | None, *, as_bytes: bool) -> object:
    """The payload that PAYLOAD names: None without one; ``-`` reads standard input to its end, and blocks.

    UsageError, Failure.
    """
    if argument is None:
        return None
    if argument != "-":
        data = os.fsencode(argument)
        if as_bytes:
            return data
        try:
            return parse(data.decode())
        except UnicodeDecodeError as error:
            raise UsageError(f"PAYLOAD is not UTF-8 at byte {error.start}; send it as bytes with --raw") from error
    data = _read_stdin()
    if as_bytes:
        return data
    try:
        return parse(data.decode().removesuffix("\n"))
    except UnicodeDecodeError as error:
        raise Failure(f"standard input is not UTF-8 at byte {error.start}; send it as bytes with --raw") from error


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise Failure("no payload can be read: standard input is closed; give the payload as an argument")
    parts: list[bytes] = []
    while True:
        try:
            # Not by `sys.stdin`: a thread left behind in there would block the end of the process.
            part = os.read(_STDIN, 1 << 20)
        except BlockingIOError:
            # Somebody who shares the open file made it non-blocking; that is his to undo.
            poll = select.poll()
            poll.register(_STDIN, select.POLLIN)
            poll.poll()
        except OSError as error:
            raise Failure(f"no payload can be read from standard input: {error.strerror}") from error
        else:
            if not part:
                return b"".join(parts)
            parts.append(part)


def from_output(data: bytes, *, as_bytes: bool) -> object:
    """The payload that a program's output stands for: as on our own input, but bytes where it is not UTF-8."""
    if as_bytes:
        return data
    try:
        return parse(data.decode().removesuffix("\n"))
    except UnicodeDecodeError:
        return data


def to_bytes(payload: object) -> bytes:
    """A payload as bytes, nothing added: bytes as they are, text in UTF-8, all else as JSON. RecursionError."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    return json_text(json_form(payload)).encode()


def raw(message: Message) -> bytes:
    """``to_bytes`` of what a message carries."""
    payload = _decoded(message)
    return to_bytes(payload) if isinstance(payload, (bytes, str)) else _shown(message, payload).encode()


def human(message: Message, *, lines: bool = False) -> str:
    """A payload for people, on one line unless ``lines`` lets its own line feeds stand."""
    payload = _decoded(message)
    if isinstance(payload, str):
        return escaped(payload, lines=lines)
    return repr(payload) if isinstance(payload, bytes) else _shown(message, payload)


def human_fds(message: Message) -> str:
    """`` [fd: KIND SIZE]`` for each descriptor; ``-`` where there is no size."""
    kinds = (describe_fd(fd.fileno()) for fd in message.fds)
    return "".join(f" [fd: {kind} {'-' if size is None else size}]" for kind, size in kinds)


def json_line(message: Message) -> str:
    """A whole message as one JSON object on one line."""
    # Put together from texts: nesting that only just can be written must not be nested deeper by this.
    fds = []
    for fd in message.fds:
        kind, size = describe_fd(fd.fileno())
        fds.append({"kind": kind, "size": size})
    return (
        f'{{"topic": {json_text(message.topic)}, "payload": {_shown(message, _decoded(message))}, '
        f'"headers": {json_text(json_form(message.headers))}, "sender": {_sender(message.sender)}, '
        f'"fds": {json_text(fds)}, "fds_missing": {message.fds_missing}, "lost": {message.lost}, '
        f'"retained": {json_text(message.retained)}, "interrupted": {json_text(message.interrupted)}}}'
    )


def json_bytes(message: Message) -> bytes:
    """``json_line`` as it is printed."""
    return f"{json_line(message)}\n".encode()


@functools.lru_cache(maxsize=256)
def _sender(peer: Peer) -> str:
    return json_text(dataclasses.asdict(peer))


def json_text(form: object) -> str:
    """Valid JSON on one line, safe to show."""
    # Outside of strings JSON has no character that `escaped` would touch, and within them its escapes mean the same.
    return escaped(_encode(form))


def json_form(value: object) -> object:
    """What JSON can say of a decoded payload. RecursionError where it is nested too deeply."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else json.dumps(value)
        case bytes():
            return {"base64": _base64(value)}
        case dict():
            return {key if isinstance(key, str) else _key(key): json_form(item) for key, item in value.items()}
        case msgpack.ExtType():  # before `tuple`, which it is too
            return {"ext": value.code, "base64": _base64(value.data)}
        case msgpack.Timestamp():
            return {"ext": -1, "base64": _base64(value.to_bytes())}
        case list() | tuple():
            return [json_form(item) for item in value]
    raise Failure(f"a payload holds a {type(value).__name__}, for which there is no JSON")


def _key(key: object) -> str:
    form = json_form(key)
    return form if isinstance(form, str) else json.dumps(form)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _shown(message: Message, payload: object) -> str:
    try:
        return json_text(json_form(payload))
    except RecursionError:
        complain(f"a payload on {message.topic!r} is nested too deeply to be shown; it is shown as msgpack")
        return json_text({"msgpack": _base64(message.data)})


def _decoded(message: Message) -> Any:
    """The payload; what cannot be decoded is shown all the same: one peer's nonsense must not end a subscription."""
    try:
        return message.payload
    except PayloadError as error:
        complain(f"a payload on {message.topic!r} from peer {message.sender.id} is unreadable: {error}")
        return {"msgpack": _base64(message.data)}
