"""TCP: bytes without edges, and no descriptors (tcp(7)).

TCP_NODELAY, for batches are made here and not by Nagle; keepalive and TCP_USER_TIMEOUT, so that a peer that
vanished without a word is noticed within about a minute.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import final

from .base import Blocked, Buffer, Transport, blocked_by
from .stream import RECEIVE_BYTES

__all__ = ["TcpTransport"]

# Seconds idle before the first probe, between probes, and how many go unanswered; then the same in
# milliseconds for data that nobody acknowledges. Not every system has every one of them.
_OPTIONS = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 60_000),
)

_SEND_FLAGS = int(socket.MSG_NOSIGNAL)


@final
class TcpTransport(Transport):
    """A connected TCP socket."""

    __slots__ = ()

    name = "tcp"
    carries_fds = False
    records = False
    full_receive = RECEIVE_BYTES

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def remote_host(self) -> str:
        return str(self.sock.getpeername()[0])

    def receive(self) -> tuple[bytes, tuple[int, ...]] | None:
        try:
            return self.sock.recv(RECEIVE_BYTES), ()
        except BlockingIOError:
            return None

    def send(self, buffers: Sequence[Buffer], fds: Sequence[int] = ()) -> int | Blocked:
        if fds:
            raise ValueError("TCP carries no file descriptors")
        try:
            if len(buffers) == 1:
                return self.sock.send(buffers[0], _SEND_FLAGS)
            return self.sock.sendmsg(buffers, (), _SEND_FLAGS)
        except OSError as error:
            return blocked_by(error)
