"""What the bus is compared with: bare sockets, as a program without it would use them.

Nothing is batched and nothing checked: each message is one call to send it and one to receive it. The loops
are as short as Python allows; a slow reference would flatter the bus.
"""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Callable
from itertools import repeat

import trio

from .process import Crew, Program
from .programs import answer, orders
from .rounds import quantiles

__all__ = ["fd_pair", "message_pair", "relayed_pair"]

_KINDS = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}
_FD_ROOM = socket.CMSG_SPACE(array.array("i").itemsize)
_RELAYED_BYTES = 1 << 16


def message_pair(crew: Crew, transport: str) -> tuple[Program, Program]:
    """A sender and a receiver of messages on a socket pair."""
    return _joined(crew, transport, send_messages, receive_messages)


def fd_pair(crew: Crew, transport: str) -> tuple[Program, Program]:
    """A sender and a receiver of messages with one descriptor each."""
    return _joined(crew, transport, send_fds, receive_fds)


def relayed_pair(crew: Crew, transport: str) -> tuple[Program, Program, Program]:
    """Who asks, who relays and who echoes: Trio programs; on UNIX sockets always of kind STREAM."""
    kind = "tcp" if transport == "tcp" else "stream"
    asking, left = _pair(kind)
    right, echoing = _pair(kind)
    with asking, left, right, echoing:
        return (
            crew.start("reference client", ask, asking.fileno(), fd=asking.fileno()),
            crew.start("relay", relay, left.fileno(), right.fileno(), left=left.fileno(), right=right.fileno()),
            crew.start("reference server", echo, echoing.fileno(), fd=echoing.fileno()),
        )


def _joined(
    crew: Crew, transport: str, send: Callable[[int], None], receive: Callable[[int], None]
) -> tuple[Program, Program]:
    left, right = _pair(transport)
    with left, right:
        return (
            crew.start("reference sender", send, left.fileno(), fd=left.fileno()),
            crew.start("reference receiver", receive, right.fileno(), fd=right.fileno()),
        )


def _pair(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind in _KINDS:
        return socket.socketpair(socket.AF_UNIX, _KINDS[kind])
    with socket.create_server(("127.0.0.1", 0)) as welcoming:
        left = socket.create_connection(welcoming.getsockname())
        right, _ = welcoming.accept()
    for sock in (left, right):
        # As the bus's own; without it the kernel would batch what is to be unbatched.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return left, right


# The programs


def send_messages(fd: int) -> None:
    """``count`` messages of ``size`` bytes; answers when it began."""
    with socket.socket(fileno=fd) as sock:
        send = sock.send
        for order in orders():
            payload = bytes(order["size"])
            started = time.monotonic()
            for _ in repeat(None, order["count"]):
                send(payload)
            answer(started)


def receive_messages(fd: int) -> None:
    """Answers when it waits for them, and when the last one has come."""
    with socket.socket(fileno=fd) as sock:
        receive = sock.recv
        for order in orders():
            size = order["size"]
            answer()
            for _ in repeat(None, order["count"]):
                # A message may come in parts where the kind of socket keeps no edges.
                receive(size, socket.MSG_WAITALL)
            answer(time.monotonic())


def send_fds(fd: int) -> None:
    """``count`` messages with a memfd each; answers when it began."""
    file = os.memfd_create("benchmark")
    with socket.socket(fileno=fd) as sock:
        send = sock.sendmsg
        for order in orders():
            buffers = [bytes(order["size"])]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
            started = time.monotonic()
            for _ in repeat(None, order["count"]):
                send(buffers, rights)
            answer(started)


def receive_fds(fd: int) -> None:
    """Closes each descriptor; answers when it waits for them, and when the last one has come."""
    with socket.socket(fileno=fd) as sock:
        receive = sock.recvmsg
        for order in orders():
            size = order["size"]
            answer()
            for _ in repeat(None, order["count"]):
                _, control, _, _ = receive(size, _FD_ROOM, socket.MSG_CMSG_CLOEXEC)
                (came,) = array.array("i", control[0][2])
                os.close(came)
            answer(time.monotonic())


def ask(fd: int) -> None:
    """``count`` times: send ``size`` bytes and wait for them; answers with quantiles."""
    trio.run(_ask, fd)


async def _ask(fd: int) -> None:
    with _adopted(fd) as sock:
        for order in orders():
            payload = bytes(order["size"])
            nanoseconds = []
            for _ in repeat(None, order["count"]):
                started = time.perf_counter_ns()
                await sock.send(payload)
                await sock.recv(_RELAYED_BYTES)
                nanoseconds.append(time.perf_counter_ns() - started)
            answer(quantiles(nanoseconds))


def relay(left: int, right: int) -> None:
    """Forward bytes both ways."""
    trio.run(_relay, left, right)


async def _relay(left: int, right: int) -> None:
    with _adopted(left) as one, _adopted(right) as other:
        answer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_forward, one, other)
            nursery.start_soon(_forward, other, one)


def echo(fd: int) -> None:
    """Send back what comes."""
    trio.run(_echo, fd)


async def _echo(fd: int) -> None:
    with _adopted(fd) as sock:
        answer()
        await _forward(sock, sock)


async def _forward(source: trio.socket.SocketType, target: trio.socket.SocketType) -> None:
    while data := await source.recv(_RELAYED_BYTES):
        await target.send(data)


def _adopted(fd: int) -> trio.socket.SocketType:
    return trio.socket.from_stdlib_socket(socket.socket(fileno=fd))
