"""UNIX STREAM: bytes without edges. Descriptors arrive with the first byte of their own sendmsg (unix(7))."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from .base import Blocked, Buffer, Credentials, Transport, unix_credentials
from .fds import close_with_fds, receive_with_fds, send_with_fds

__all__ = ["RECEIVE_BYTES", "StreamTransport"]

# About what a default UNIX socket queues; larger reads mostly come back half empty.
RECEIVE_BYTES = 1 << 17


@final
class StreamTransport(Transport):
    """A connected AF_UNIX SOCK_STREAM socket."""

    __slots__ = ()

    name = "stream"
    carries_fds = True
    records = False
    full_receive = RECEIVE_BYTES

    def receive(self) -> tuple[bytes, tuple[int, ...]] | None:
        return receive_with_fds(self.sock, RECEIVE_BYTES)

    def send(self, buffers: Sequence[Buffer], fds: Sequence[int] = ()) -> int | Blocked:
        return send_with_fds(self.sock, buffers, fds)

    def close(self) -> None:
        close_with_fds(self.sock)

    def credentials(self) -> Credentials | None:
        return unix_credentials(self.sock)
