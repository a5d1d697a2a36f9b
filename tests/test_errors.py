"""The exception tree, as its docstring draws it and as docs/wire.md names its codes."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sockbus import errors
from sockbus.errors import (
    BrokerClosing,
    ConnectError,
    ConnectionLost,
    InvalidTopic,
    LimitExceeded,
    MessageTooLarge,
    NoResponders,
    PayloadError,
    PermissionDenied,
    ProtocolError,
    RemoteError,
    RequestError,
    RequestTimeout,
    ResponderLost,
    SockbusError,
    SubscriptionStalled,
    TooManyFds,
    VersionMismatch,
    from_code,
)

# Class, its parents, and its code.
TREE = [
    (SockbusError, (Exception,), "error"),
    (ConnectError, (SockbusError,), "connect"),
    (ConnectionLost, (SockbusError,), "closed"),
    (BrokerClosing, (ConnectionLost,), "closing"),
    (ProtocolError, (SockbusError,), "protocol"),
    (VersionMismatch, (ProtocolError,), "version"),
    (InvalidTopic, (SockbusError, ValueError), "topic"),
    (PayloadError, (SockbusError, TypeError), "payload"),
    (LimitExceeded, (SockbusError,), "limit"),
    (MessageTooLarge, (LimitExceeded,), "too-large"),
    (TooManyFds, (LimitExceeded,), "too-many-fds"),
    (PermissionDenied, (SockbusError,), "permission"),
    (RequestError, (SockbusError,), "request"),
    (NoResponders, (RequestError,), "no-responders"),
    (ResponderLost, (RequestError,), "responder-lost"),
    (SubscriptionStalled, (SockbusError,), "stalled"),
    (RequestTimeout, (RequestError, TimeoutError), "timeout"),
    (RemoteError, (RequestError,), "remote"),
]
ON_THE_WIRE = [
    ProtocolError,
    VersionMismatch,
    InvalidTopic,
    PayloadError,
    LimitExceeded,
    MessageTooLarge,
    TooManyFds,
    PermissionDenied,
    NoResponders,
    ResponderLost,
    SubscriptionStalled,
]
# Each with what str() gives.
INSTANCES = [
    *((cls("one sentence; do this"), "one sentence; do this") for cls, _, _ in TREE[:-2]),
    (
        RequestTimeout("text.upper", 2.5),
        ("no reply to the request on 'text.upper' within 2.5 s; is its server busy? a longer timeout waits longer"),
    ),
    (RemoteError("KeyError", "'c'"), "KeyError: 'c'"),
    (RemoteError("KeyError", ""), "KeyError"),
]


def drawn() -> dict[str, str]:
    """Every class in the drawing at the top of errors.py, with the class above it."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = [(-1, "Exception")]
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    for line in drawing.splitlines():
        found = re.search(r"[A-Z]\w+", line)
        assert found is not None, line
        while above[-1][0] >= found.start():
            above.pop()
        parents[found[0]] = above[-1][1]
        above.append((found.start(), found[0]))
    return parents


def wire_codes() -> list[str]:
    spec = (Path(__file__).parent.parent / "docs" / "wire.md").read_text(encoding="utf-8")
    section = spec.split("\n## Errors\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize(("cls", "parents", "code"), TREE)
def test_class_has_its_parents_and_its_code(
    cls: type[SockbusError], parents: tuple[type[Exception], ...], code: str
) -> None:
    assert cls.__bases__ == parents
    assert cls.code == code


def test_table_above_holds_every_class() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type)}
    assert found == {cls for cls, _, _ in TREE}


def test_every_public_class_is_drawn_under_its_parent() -> None:
    parents = {cls.__name__: cls.__bases__[0].__name__ for cls, _, _ in TREE}
    drawing = drawn()
    assert set(errors.__all__) <= set(drawing)
    assert drawing == {name: parents[name] for name in drawing}


def test_codes_are_unique() -> None:
    codes = [code for _, _, code in TREE]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", ON_THE_WIRE)
def test_code_on_the_wire_gives_its_class_back(cls: type[SockbusError]) -> None:
    error = from_code(cls.code, "one sentence; do this")
    assert type(error) is cls
    assert str(error) == "one sentence; do this"


@pytest.mark.parametrize("code", ["", "no-such-code", *(c for k, _, c in TREE if k not in ON_THE_WIRE)])
def test_code_that_is_not_on_the_wire_gives_the_root(code: str) -> None:
    error = from_code(code, "one sentence; do this")
    assert type(error) is SockbusError
    assert str(error) == "one sentence; do this"


def test_specification_lists_the_codes_on_the_wire() -> None:
    assert sorted(wire_codes()) == sorted(cls.code for cls in ON_THE_WIRE)


@pytest.mark.parametrize(("error", "text"), INSTANCES, ids=lambda value: type(value).__name__)
def test_text_is_one_line(error: SockbusError, text: str) -> None:
    assert str(error) == text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(("error", "text"), INSTANCES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_pickled_error_comes_back_whole(
    again: Callable[[SockbusError], SockbusError], error: SockbusError, text: str
) -> None:
    found = again(error)
    assert type(found) is type(error)
    assert found.args == error.args
    assert vars(found) == vars(error)
    assert str(found) == text


@pytest.mark.parametrize("error", [RequestTimeout("text.upper", 2.5), RemoteError("KeyError", "'c'")], ids=repr)
def test_note_of_a_program_is_pickled_with_its_error(error: SockbusError) -> None:
    error.add_note("of the program")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["of the program"]


def test_timeout_and_remote_error_carry_their_facts() -> None:
    timeout = RequestTimeout("text.upper", 2.5)
    assert (timeout.topic, timeout.timeout) == ("text.upper", 2.5)
    remote = RemoteError("KeyError", "'c'")
    assert (remote.type, remote.text) == ("KeyError", "'c'")
