"""Letting go of sockets as a forked child does, and the parting of epoll instances that two loops would share."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from sockbus.transport.inheritance import go_on, let_go, look_around, open_socket

ONESHOT = select.EPOLLIN | select.EPOLLONESHOT


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket of a connection, and its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = open_socket(socket.AF_INET, socket.SOCK_STREAM)
        own.connect(listener.getsockname())
        other, _ = listener.accept()
    with own, other:
        other.settimeout(10.0)
        yield own, other


def begin_child() -> None:
    """What is done about a fork in the parent before it, and then in the child."""
    look_around()
    let_go()


class Loop:
    """An event loop's epoll instance. ``shared`` is the same one, as a parent has it where nobody here sees it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.own = stack.enter_context(select.epoll())
        receives, sends = (stack.enter_context(sock) for sock in socket.socketpair())
        socket.send_fds(sends, [b"x"], [self.own.fileno()])
        self._elsewhere = receives

    @functools.cached_property
    def shared(self) -> select.epoll:
        _, (fd,), _, _ = socket.recv_fds(self._elsewhere, 1, 1)
        return self._stack.enter_context(select.epoll.fromfd(fd))

    def is_parted(self) -> bool:
        with socket.socket() as sock:
            self.own.register(sock, select.EPOLLOUT)
            found = (sock.fileno(), select.EPOLLOUT | select.EPOLLHUP) in self.shared.poll(0)
            self.own.unregister(sock)
        return not found


@pytest.fixture
def loop() -> Iterator[Loop]:
    with contextlib.ExitStack() as stack:
        yield Loop(stack)


def test_other_end_sees_the_end_and_the_number_stays_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    own, other = pair
    number = own.fileno()
    begin_child()
    assert other.recv(1) == b""
    assert os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventfd]"
    assert not os.get_inheritable(number)
    own.close()
    assert not os.path.exists(f"/proc/self/fd/{number}")
    begin_child()  # which has nothing to let go of


def test_socket_is_opened_before_a_fork_or_after_it() -> None:
    opened: list[socket.socket] = []
    thread = threading.Thread(target=lambda: opened.append(open_socket(socket.AF_UNIX, socket.SOCK_STREAM)))
    look_around()
    thread.start()
    thread.join(0.05)
    assert not opened
    go_on()
    thread.join()
    opened[0].close()


def test_copy_of_somebody_elses_keeps_the_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    own, other = pair
    with own.dup() as parents:
        begin_child()
        other.send(b"on")
        assert parents.recv(2) == b"on"
        parents.send(b"back")
        assert other.recv(4) == b"back"


def test_sockets_that_were_not_remembered_stay(pair: tuple[socket.socket, socket.socket]) -> None:
    one, two = socket.socketpair()
    with one, two:
        begin_child()
        one.send(b"x")
        assert two.recv(1) == b"x"


def test_loop_has_an_instance_of_its_own_that_knows_all_the_rest(
    pair: tuple[socket.socket, socket.socket], loop: Loop
) -> None:
    own, _ = pair
    one, two = socket.socketpair()
    with one, two, own.dup():
        loop.own.register(own, ONESHOT)
        loop.own.register(one, select.EPOLLIN)
        loop.own.register(two, ONESHOT)
        begin_child()
        assert loop.is_parted()
        assert not os.get_inheritable(loop.own.fileno())
        one.send(b"x")
        two.send(b"x")
        both = {one.fileno(): select.EPOLLIN, two.fileno(): select.EPOLLIN}
        assert dict(loop.own.poll(0)) == both
        assert dict(loop.own.poll(0)) == {one.fileno(): select.EPOLLIN}
        # What is told once was not taken from the other.
        assert dict(loop.shared.poll(0)) == both


def test_nothing_comes_from_the_socket_and_the_loop_can_change_its_mind(
    pair: tuple[socket.socket, socket.socket], loop: Loop
) -> None:
    own, other = pair
    with own.dup() as parents:
        loop.own.register(own, select.EPOLLIN)
        begin_child()
        other.send(b"x")
        assert loop.own.poll(0) == []
        loop.own.modify(own, select.EPOLLIN | select.EPOLLONESHOT)
        loop.own.unregister(own)
        assert loop.shared.poll(0) == [(own.fileno(), select.EPOLLIN)]
        assert parents.recv(1) == b"x"


def test_loop_finds_what_it_knew_whatever_was_changed_since(
    pair: tuple[socket.socket, socket.socket], loop: Loop
) -> None:
    own, _ = pair
    one, two = socket.socketpair()
    with one, two, own.dup():
        loop.own.register(own, select.EPOLLIN)
        loop.own.register(one, select.EPOLLOUT)
        look_around()
        loop.own.unregister(own)
        loop.own.unregister(one)
        let_go()
        assert loop.is_parted()
        assert loop.own.poll(0) == [(one.fileno(), select.EPOLLOUT)]
        loop.own.modify(own, select.EPOLLOUT)


def test_what_is_registered_by_a_copy_that_was_closed_is_left_out(
    pair: tuple[socket.socket, socket.socket], loop: Loop
) -> None:
    own, _ = pair
    one, two = socket.socketpair()
    with one, two, own.dup():
        copy = one.dup()
        loop.own.register(copy, select.EPOLLOUT)
        loop.own.register(own, select.EPOLLIN)
        copy.close()
        begin_child()
        assert loop.is_parted()
        assert loop.own.poll(0) == []


def test_instance_without_a_connection_stays_shared(pair: tuple[socket.socket, socket.socket], loop: Loop) -> None:
    with socket.socket() as sock:
        loop.own.register(sock, select.EPOLLIN)
        begin_child()
        assert not loop.is_parted()


def test_instance_with_marks_of_its_own_stays_shared(pair: tuple[socket.socket, socket.socket], loop: Loop) -> None:
    own, _ = pair
    with own.dup():
        event = struct.pack("=IQ", select.EPOLLIN, 1 << 20)  # packed on x86 alone
        if struct.calcsize("=IQ") != 12 or os.uname().machine != "x86_64":
            pytest.skip("struct epoll_event is another one here")
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.epoll_ctl(loop.own.fileno(), 1, own.fileno(), event) == 0
        begin_child()
        assert not loop.is_parted()
