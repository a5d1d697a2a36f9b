"""UNIX SEQPACKET: each send is one record of whole frames, each receive brings one record (unix(7))."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import final

from ..protocol.frame import MAX_FRAME
from .base import Blocked, Buffer, Credentials, Transport, hung_up, unix_credentials
from .fds import close_with_fds, receive_with_fds, send_with_fds

__all__ = ["SeqpacketTransport"]


@final
class SeqpacketTransport(Transport):
    """A connected SOCK_SEQPACKET socket."""

    __slots__ = ()

    name = "seqpacket"
    carries_fds = True
    records = True
    # Who has much to send sends large records; a look for another one after a small one is mostly in vain (EAGAIN).
    full_receive = MAX_FRAME // 2

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        # A record larger than the sender's buffer less 32 bytes is refused (EMSGSIZE) even by an empty queue,
        # and a system may have lowered the default (wmem_default, socket(7)). The kernel doubles what is set.
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < 2 * MAX_FRAME:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_FRAME)

    def receive(self) -> tuple[bytes, tuple[int, ...]] | None:
        # MSG_TRUNC shows a larger record; with a buffer of one byte more, a record of that size would pass.
        return receive_with_fds(self.sock, MAX_FRAME)

    def send(self, buffers: Sequence[Buffer], fds: Sequence[int] = ()) -> int | Blocked:
        return send_with_fds(self.sock, buffers, fds)

    def close(self) -> None:
        close_with_fds(self.sock)

    def credentials(self) -> Credentials | None:
        return unix_credentials(self.sock)

    def end_is_record(self) -> bool:
        # An empty record reads like the end of the stream; only the end shows as a hang-up.
        return not hung_up(self.sock)
