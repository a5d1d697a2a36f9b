"""From an address to a connected transport, without waiting.

``dial`` is a generator: it yields what it needs waited for and is sent the answer, so that every runtime supplies only
the waiting and the roads, the falling back and the sentences are written once. It owns the socket that it is at work
on; closing the generator closes that.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Generator
from typing import Any, NamedTuple

from ..address import Address
from ..errors import ConnectError, PermissionDenied
from ..protocol.fallback import NextStep, after_connect_error
from .base import Transport
from .inheritance import open_socket
from .private import check_broker, check_private_directory
from .seqpacket import SeqpacketTransport
from .stream import StreamTransport
from .tcp import TcpTransport

__all__ = ["Dialing", "Pause", "Readable", "Resolve", "Writable", "dial"]

# A full backlog empties as fast as the broker accepts: 1 ms at first, doubled up to this.
MAX_PAUSE = 0.1


class Writable(NamedTuple):
    """Wait until the socket is writable."""

    sock: socket.socket


class Readable(NamedTuple):
    """Wait until the socket is readable, or has ended."""

    sock: socket.socket


class Pause(NamedTuple):
    """Wait for a time."""

    seconds: float


class Resolve(NamedTuple):
    """Look the host up and send back what getaddrinfo(3) gives for a stream socket, or throw its OSError in."""

    host: str
    port: int


Dialing = Generator[Writable | Pause | Resolve, Any, tuple[Transport, Address]]


def dial(address: Address) -> Dialing:
    """Connect by the first road that is to be had; returns the transport and the road taken.

    Raises ConnectError, which names every road and why it is closed, and PermissionDenied on a default address that
    is not private.
    """
    reasons: list[str] = []
    if address.is_default:
        try:
            check_private_directory(address.path)
        except OSError as error:
            raise _no_broker(address, [_reason(error)]) from error
    for road in address.roads():
        try:
            transport = yield from _ROADS[road.scheme](road)
        except OSError as error:
            reasons.append(f"{road.scheme}: {_reason(error)}")
            if not isinstance(error, socket.gaierror) and after_connect_error(error.errno or 0) is NextStep.NEXT_ROAD:
                continue
            break
        if address.is_default:
            _refuse_stranger(address, transport)
        return transport, road
    raise _no_broker(address, reasons)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        # Its numbers are getaddrinfo(3)'s own.
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else str(error)


def _no_broker(address: Address, reasons: list[str]) -> ConnectError:
    return ConnectError(f"no broker at {address} ({'; '.join(reasons)}); start one with: sockbus broker {address}")


def _refuse_stranger(address: Address, transport: Transport) -> None:
    try:
        check_broker(str(address), transport.credentials())
    except PermissionDenied:
        transport.close()
        raise


def _unix(road: Address, kind: int) -> Generator[Pause, Any, socket.socket]:
    pause = 0.001
    sock = open_socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        while True:
            code = sock.connect_ex(road.path)
            if not code:
                return sock
            if after_connect_error(code) is not NextStep.RETRY:
                raise OSError(code, os.strerror(code))
            yield Pause(pause)
            pause = min(pause * 2, MAX_PAUSE)
    except BaseException:
        sock.close()
        raise


def _seqpacket(road: Address) -> Generator[Pause, Any, Transport]:
    return SeqpacketTransport((yield from _unix(road, socket.SOCK_SEQPACKET)))


def _stream(road: Address) -> Generator[Pause, Any, Transport]:
    return StreamTransport((yield from _unix(road, socket.SOCK_STREAM)))


def _tcp(road: Address) -> Generator[Writable | Resolve, Any, Transport]:
    last = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, target in (yield Resolve(road.host, road.port)):
        sock = open_socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(target)
            if code == errno.EINPROGRESS:
                yield Writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code and sock.getsockname() == sock.getpeername():
                # Nobody listens, and the kernel gave this end the very port: it is connected to itself.
                code = errno.ECONNREFUSED
            if not code:
                return TcpTransport(sock)
            last = OSError(code, os.strerror(code))
        except OSError as error:
            last = error
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise last


_ROADS = {"seqpacket": _seqpacket, "stream": _stream, "tcp": _tcp}
