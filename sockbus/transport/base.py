"""What every transport is: one connected, non-blocking socket, read in chunks and written in batches.

A ``Transport`` never waits and never interprets: it returns what one system call brought, or says that it
would have had to wait, and for what. It owns its socket. ``OSError`` passes through to the runtime, which
translates it once; after one from ``send``, what the peer sent before it went can still be received.
"""

from __future__ import annotations

import enum
import errno
import select
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Blocked", "Buffer", "Credentials", "Transport"]

Buffer = bytes | bytearray | memoryview

# What sendmsg meets when the kernel is short of something that the socket's writability does not show:
# waiting for POLLOUT would spin. ETOOMANYREFS: the user's limit of descriptors in flight (unix(7)).
_SHORT_OF = frozenset((errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM))
_UCRED = struct.Struct("3i")


class Blocked(enum.Enum):
    """Why nothing was sent, and so what to wait for."""

    WRITABLE = "until the socket is writable"
    LATER = "for a while: the kernel's limits show no readiness"


class Credentials(NamedTuple):
    """Who is at the other end of a UNIX socket, fixed at connect (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


class Transport(ABC):
    """One connected, non-blocking socket.

    ``name``: "seqpacket", "stream" or "tcp"; ``carries_fds``; ``records``: whether each send makes one record
    of at most 64 KiB of whole frames.
    """

    __slots__ = ("sock",)

    name: str
    carries_fds: bool
    records: bool
    #: a receive of fewer bytes than this, and no descriptors, has probably emptied the socket
    full_receive: int

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    @abstractmethod
    def receive(self) -> tuple[bytes, tuple[int, ...]] | None:
        """What one call brought: bytes and the descriptors that came with them, which the caller then owns.

        None when nothing is there; ``b""``, never with descriptors, at the end of the stream. A peer that is
        gone has left what it sent: receive until the end, or lose its goodbye. On TCP a peer that left with
        bytes unread ends in ConnectionResetError instead. Raises ProtocolError or LimitExceeded, with every
        descriptor closed, when the kernel had to cut something off.
        """

    @abstractmethod
    def send(self, buffers: Sequence[Buffer], fds: Sequence[int] = ()) -> int | Blocked:
        """Send as much as the socket takes in one call; the number of bytes, more than 0, or why none were.

        ``fds`` are borrowed. They have left when a number is returned, and have not when the call was
        blocked; at least one byte must go with them.
        """

    def credentials(self) -> Credentials | None:
        """The other process, or None where the system does not know it (TCP)."""
        return None

    def remote_host(self) -> str:
        """The host at the other end, "" for a UNIX socket; OSError when the peer has gone."""
        return ""

    def end_is_record(self) -> bool:
        """After ``receive`` gave ``b""``: whether that was an empty record rather than the end."""
        return False

    def close(self) -> None:
        """Close the socket without ever blocking; again is no error. What came and was not received is thrown away."""
        self.sock.close()


def blocked_by(error: OSError) -> Blocked:
    """What to wait for after a failed send; raises the error again when waiting does not help."""
    if isinstance(error, BlockingIOError):
        return Blocked.WRITABLE
    if error.errno in _SHORT_OF:
        return Blocked.LATER
    raise error


def unix_credentials(sock: socket.socket) -> Credentials | None:
    """SO_PEERCRED of a connected UNIX socket; None where the system has no such option."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return Credentials(pid, uid, gid)


def hung_up(sock: socket.socket) -> bool:
    """Whether the other side has closed or shut down its end (poll(2))."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLRDHUP)
    return any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
