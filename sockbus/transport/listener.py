"""Sockets that welcome connections.

A ``Listener`` turns what it accepts into a transport. It binds and listens, nothing else: who may use a path, and
whether a broker already serves it, is settled before (``broker/lock.py``).

Until a peer has introduced itself nothing may be passed to it: where the kernel can (SO_PASSRIGHTS, Linux 6.16), a
sender of descriptors meets EPERM until ``admit_fds``. Elsewhere one unaccepted connection can hold tens of thousands.
"""

from __future__ import annotations

import os
import socket
from typing import final

from ..address import Address
from ..fd import close_fds
from .base import Transport
from .seqpacket import SeqpacketTransport
from .stream import StreamTransport
from .tcp import TcpTransport

__all__ = ["Listener", "admit_fds"]

# Linux caps it at net.core.somaxconn (4096); a full backlog makes clients wait, so a large one costs nothing.
BACKLOG = 4096
# From the kernel's asm-generic/socket.h; the socket module does not name it yet.
_SO_PASSRIGHTS = 83

_TRANSPORTS: dict[str, type[Transport]] = {
    "seqpacket": SeqpacketTransport,
    "stream": StreamTransport,
    "tcp": TcpTransport,
}


@final
class Listener:
    """One welcoming socket. ``address``: as bound, with the port that the system chose for port 0."""

    __slots__ = ("_transport", "address", "sock")

    def __init__(self, road: Address) -> None:
        """Bind and listen on one concrete address; OSError when that cannot be."""
        self._transport = _TRANSPORTS[road.scheme]
        self.sock = _listen_tcp(road) if road.scheme == "tcp" else _listen_unix(road)
        self.address = road
        if road.scheme == "tcp":
            self.address = Address.parse(f"tcp:{_bracketed(road.host)}:{self.sock.getsockname()[1]}")

    def accept(self) -> Transport | None:
        """One connection, or None when none waits or it has gone again; OSError (EMFILE, …) when it cannot be taken."""
        try:
            sock, _ = self.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        try:
            return self._transport(sock)
        except OSError:
            # The peer reset the connection before its options could be set.
            sock.close()
            return None

    def close(self) -> None:
        """Stop welcoming; a UNIX socket's path stays for its owner to remove.

        What waits unaccepted may hold descriptors that linger, so it is closed in another thread.
        """
        if self.sock.fileno() >= 0:
            close_fds((self.sock.detach(),))


def admit_fds(transport: Transport) -> None:
    """Let the peer pass descriptors from now on."""
    if transport.carries_fds:
        _pass_rights(transport.sock, allowed=True)


def _pass_rights(sock: socket.socket, *, allowed: bool) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, int(allowed))
    except OSError:
        # An older kernel: descriptors pass always, and the inbox refuses what comes too early.
        return


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen_unix(road: Address) -> socket.socket:
    kind = socket.SOCK_SEQPACKET if road.scheme == "seqpacket" else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        _pass_rights(sock, allowed=False)
        # Until listen() nobody can connect, so nobody gets in between bind and chmod.
        sock.bind(road.path)
        os.chmod(road.path, 0o600)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_tcp(road: Address) -> socket.socket:
    found = socket.getaddrinfo(road.host, road.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, target = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        # Without it the port stays taken for a minute after a broker was killed (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
