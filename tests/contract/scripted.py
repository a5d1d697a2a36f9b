"""A broker that does what a test says, frame by frame: for what a real one does at no time that a test could name."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import socket
import struct
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from sockbus.message import Peer
from sockbus.protocol.frame import Kind, control
from sockbus.protocol.handshake import LIMIT_NAMES, Welcome
from sockbus.protocol.inbox import Inbox

__all__ = ["SECONDS", "Connection", "Scripted", "scripted"]

SECONDS = 10.0
LIMITS = dict.fromkeys(LIMIT_NAMES, 512) | {
    "frame_bytes": 1 << 16, "message_bytes": 1 << 26, "header_bytes": 4096, "message_fds": 16, "link_fds": 64,
}  # fmt: skip


class Connection:
    """One client of it. Its calls wait, and are made in a thread."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(SECONDS)
        self._sock = sock
        #: who the client is told that it is
        self.peer = Peer(number, None, "stream", 0, 0, 1)
        self._inbox = Inbox(carries_fds=False, fds_may_miss=True)
        self._came: collections.deque[tuple[int, int]] = collections.deque()
        #: how many frames of each kind were read; pieces are frames of their own
        self.seen: collections.Counter[int] = collections.Counter()

    def wait_for(self, kind: Kind) -> int:
        """Read until such a frame comes; its number."""
        while True:
            while self._came:
                found, number = self._came.popleft()
                if found == kind:
                    return number
            data = self._sock.recv(1 << 16)
            assert data, f"the client has gone without a {kind.name}"
            for run in self._inbox.receive(data, ()):
                self._came.append((run.kind, run.correlation))
                self.seen[run.kind] += run.count

    def send(self, *frames: bytes) -> None:
        self._sock.sendall(b"".join(frames))

    def send_and_see_read(self, *frames: bytes) -> None:
        """Send, and go on when the client has read it: what is sent then comes by itself (unix(7), SIOCOUTQ)."""
        self.send(*frames)
        while struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4))) != (0,):
            time.sleep(0)

    def welcome(self, **limits: int) -> bytes:
        return Welcome((), self.peer, 1, 0, (1 << 20, 64, 1 << 20, 64, 1 << 20, 64, 0), LIMITS | limits).encode()

    def ok(self, kind: Kind) -> bytes:
        """The answer to the next such frame."""
        return control(Kind.OK, correlation=self.wait_for(kind))

    def close(self) -> None:
        self._sock.close()


class Scripted:
    """Where it listens."""

    def __init__(self, path: Path) -> None:
        self.address = f"stream:{path}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(SECONDS)
        self._listener.bind(str(path))
        self._listener.listen()
        self._numbers = itertools.count(1)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._listener.close)

    def accept(self) -> Connection:
        """The next client, once it has said HELLO."""
        connection = Connection(self._listener.accept()[0], next(self._numbers))
        self._stack.callback(connection.close)
        connection.wait_for(Kind.HELLO)
        return connection

    def stop_listening(self) -> None:
        """Whoever comes now is refused."""
        self._listener.close()

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def scripted() -> Iterator[Scripted]:
    """One, until it is left."""
    with tempfile.TemporaryDirectory(prefix="sockbus-") as directory:
        broker = Scripted(Path(directory, "s"))
        try:
            yield broker
        finally:
            broker.close()
