"""Which sockets are the bus's own: by the names of what they are connected to, whatever family they are of."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sockbus.broker.own import is_own_socket

KINDS = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def unix(kind: str, path: Path, stack: ExitStack) -> tuple[socket.socket, socket.socket, socket.socket]:
    """A listener, and both ends of a connection to it."""
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, KINDS[kind]))
    listener.bind(str(path))
    listener.listen()
    near = stack.enter_context(socket.socket(socket.AF_UNIX, KINDS[kind]))
    near.connect(str(path))
    return listener, near, stack.enter_context(listener.accept()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_socket_of_a_unix_listener_is_own(kind: str, place: Path, stack: ExitStack) -> None:
    sockets = unix(kind, place / "own", stack)
    assert [is_own_socket(sock.fileno(), {str(place / "own")}) for sock in sockets] == [True, True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_sockets_of_another_listener_are_not(kind: str, place: Path, stack: ExitStack) -> None:
    sockets = unix(kind, place / "other", stack)
    assert [is_own_socket(sock.fileno(), {str(place / "own")}) for sock in sockets] == [False, False, False]


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_every_socket_of_a_tcp_listener_is_own(bound: str, stack: ExitStack) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    try:
        listener = stack.enter_context(socket.create_server((bound, 0), family=family))
    except OSError as error:
        pytest.skip(f"{bound}: {error}")
    name = listener.getsockname()
    near = stack.enter_context(socket.create_connection(("::1" if ":" in bound else "127.0.0.1", name[1])))
    sockets = [listener, near, stack.enter_context(listener.accept()[0])]
    assert [is_own_socket(sock.fileno(), {name}) for sock in sockets] == [True, True, True]
    other = (name[0], name[1] ^ 1, *name[2:])
    assert [is_own_socket(sock.fileno(), {other}) for sock in sockets] == [False, False, False]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_nameless_pair_is_not_own(kind: int, stack: ExitStack) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    with near, far:
        assert not is_own_socket(near.fileno(), {"x"})
        assert not is_own_socket(far.fileno(), {"x"})


@pytest.mark.parametrize("family", ["AF_ALG", "AF_XDP", "AF_NETLINK", "AF_VSOCK", "AF_PACKET"])
def test_socket_of_any_family_can_be_asked(family: str, stack: ExitStack) -> None:
    number = getattr(socket, family, 44)  # AF_XDP, which the socket module does not name
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_RAW, socket.SOCK_STREAM):
        try:
            sock = socket.socket(number, kind)
        except OSError:
            continue
        with sock:
            assert not is_own_socket(sock.fileno(), {"x"})
        return
    pytest.skip(f"no {family} here")


def test_what_is_no_socket_is_not_own(place: Path) -> None:
    reading, writing = os.pipe()
    try:
        assert not is_own_socket(reading, {str(place)})
        assert not is_own_socket(writing, {str(place)})
    finally:
        os.close(reading)
        os.close(writing)


def test_asking_closes_nothing() -> None:
    near, far = socket.socketpair()
    with near, far:
        is_own_socket(near.fileno(), set())
        near.send(b"still open")
        assert far.recv(10) == b"still open"
