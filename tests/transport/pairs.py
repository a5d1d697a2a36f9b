"""Connected transports, and what tests of them wait for and count.

Waiting is for the kernel to say that something is there, never for time to pass; ``PATIENCE`` only turns what
would hang into a failure.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import resource
import select
import socket
from collections.abc import Callable, Iterable, Iterator

from sockbus.protocol.outbox import Outbox
from sockbus.transport.base import Blocked, Transport
from sockbus.transport.seqpacket import SeqpacketTransport
from sockbus.transport.stream import StreamTransport
from sockbus.transport.tcp import TcpTransport

PATIENCE = 10.0  # seconds
KINDS = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}

Sockets = tuple[socket.socket, socket.socket]

_ROOM = socket.CMSG_SPACE(253 * 4)


def connected(name: str) -> tuple[Transport, Transport]:
    """Two ends of one connection."""
    if name == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        return TcpTransport(near), TcpTransport(far)
    near, far = socket.socketpair(socket.AF_UNIX, KINDS[name])
    transport = SeqpacketTransport if name == "seqpacket" else StreamTransport
    return transport(near), transport(far)


def await_events(*wanted: tuple[socket.socket, int]) -> None:
    """Return once one of the sockets shows one of its poll(2) events, or has hung up."""
    poll = select.poll()
    for sock, events in wanted:
        poll.register(sock, events)
    assert poll.poll(PATIENCE * 1000), "nothing happened"


def arriving(transport: Transport) -> tuple[bytes, tuple[int, ...]]:
    """What the next receive brings, once something is there."""
    await_events((transport.sock, select.POLLIN))
    got = transport.receive()
    assert got is not None
    return got


def fill(transport: Transport, record: bytes) -> int:
    """Send until nothing is taken any more; the number of bytes that were."""
    taken = 0
    while isinstance(sent := transport.send([record]), int):
        taken += sent
    assert sent is Blocked.WRITABLE
    return taken


def send_raw(sock: socket.socket, data: bytes, fds: Iterable[int]) -> int:
    """One sendmsg(2) with descriptors."""
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def receive_raw(sock: socket.socket, room: int = _ROOM, flags: int = 0) -> tuple[bytes, list[int], int]:
    """Bytes, descriptors and the flags that came, from one recvmsg(2)."""
    data, control, came, _ = sock.recvmsg(1 << 20, room, flags | socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for _, _, content in control:
        fds.frombytes(content)
    return data, list(fds), came & ~socket.MSG_CMSG_CLOEXEC


def fill_raw(sock: socket.socket, record: bytes) -> int:
    """How many records go in until the socket is full."""
    count = 0
    try:
        while sock.send(record):
            count += 1
    except BlockingIOError:
        return count
    raise AssertionError("an empty record fills nothing")


def failure(call: Callable[[], object]) -> str:
    """The name of the errno with which a call fails."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "no error"


def contents(fds: Iterable[int]) -> list[bytes]:
    """What the first bytes of the files are; closes them."""
    found = []
    for fd in fds:
        found.append(os.pread(fd, 64, 0))
        os.close(fd)
    return found


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """Lowers the soft limit of open files so that just ``count`` more can be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count + 1)]  # the lowest free numbers, rising
    for fd in free:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Carriage:
    """Iterates over what each receive of ``far`` brings until all of an outbox went through ``near``.

    It receives only when the socket is full. ``cut`` and ``cut_with_fds``: sends that took a part of a batch;
    ``full``: sends that found no room.
    """

    def __init__(self, outbox: Outbox, near: Transport, far: Transport) -> None:
        self.outbox = outbox
        self.near = near
        self.far = far
        self.cut = self.cut_with_fds = self.full = 0

    def __iter__(self) -> Iterator[tuple[bytes, tuple[int, ...]]]:
        missing = self.outbox.queued_bytes
        while missing:
            self._push()
            writable = [(self.near.sock, select.POLLOUT)] if self.outbox.queued_bytes else []
            await_events((self.far.sock, select.POLLIN), *writable)
            if (got := self.far.receive()) is not None:
                missing -= len(got[0])
                yield got

    def _push(self) -> None:
        while (batch := self.outbox.batch()) is not None:
            fds = batch.fds.fds if batch.fds is not None else ()
            sent = self.near.send(batch.buffers, fds)
            if isinstance(sent, Blocked):
                self.full += 1
                return
            if sent < batch.size:
                self.cut += 1
                self.cut_with_fds += bool(fds)
            self.outbox.sent(sent)
