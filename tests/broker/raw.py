"""A client on a plain socket that says whatever it is told to: the hostile peer of these tests, and the honest one.

It keeps to nothing of docs/wire.md by itself. It reads frames with ``struct`` alone, so that it shares no mistake with
the inbox, owns its socket and every descriptor that came, and waits ``PATIENCE`` seconds at most.
"""

from __future__ import annotations

import array
import collections
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import msgpack

from sockbus.address import Address
from sockbus.protocol.frame import Flag, Kind, control, encode

__all__ = ["END", "PATIENCE", "SHUTDOWN", "Frame", "Raw", "hello", "open_files", "pieced", "with_headers"]

PATIENCE = 20.0  # seconds; only what would hang for good takes so long
_PREFIX = struct.Struct(">BIbBBBBQQ")
_ROOM = socket.CMSG_SPACE(253 * 4)
_KINDS = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}
#: why a peer cannot write: it was sent away, or (EPERM, SO_PASSRIGHTS) may not pass descriptors yet
_REFUSED = (BrokenPipeError, ConnectionResetError, PermissionError)
#: in place of bytes to send: no more comes from here
SHUTDOWN = b""
#: in place of a frame: the connection has ended
END = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that came; ``fds`` belong to the ``Raw`` that read it."""

    kind: Kind
    nfds: int
    flags: int
    sender: int
    correlation: int
    topic: str
    content: bytes
    fds: tuple[int, ...] = field(default=())

    @property
    def body(self) -> Any:
        """The msgpack object behind the topic."""
        return msgpack.unpackb(self.content)


def hello(version: object = 1, features: Sequence[object] = ("fds",), name: object = None, **more: object) -> bytes:
    """A HELLO frame; whatever is given goes in."""
    return control(Kind.HELLO, {"version": version, "features": list(features), "name": name, **more})


def with_headers(headers: object, payload: bytes = b"\xc0") -> bytes:
    """What stands behind the topic of a frame with the flag HEADERS; bytes are taken as they are."""
    packed = headers if isinstance(headers, bytes) else msgpack.packb(headers)
    return struct.pack(">H", len(packed)) + packed + payload


def pieced(total: int, part: bytes) -> bytes:
    """What stands behind the topic of a frame with the flag PIECED."""
    return struct.pack(">Q", total) + part


@contextlib.contextmanager
def open_files(count: int) -> Iterator[list[int]]:
    """Descriptors to send, closed afterwards."""
    fds = [os.memfd_create("sent") for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


class Raw:
    """One connection. With ``greet`` the handshake is done when it is made: ``number`` is then its peer number."""

    def __init__(self, address: str, *, greet: bool = True, features: Sequence[str] | None = None) -> None:
        road = Address.parse(address)
        self.transport = road.scheme
        self.carries_fds = road.scheme != "tcp"
        if road.scheme == "tcp":
            self.sock = socket.create_connection((road.host, road.port), PATIENCE)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.sock = socket.socket(socket.AF_UNIX, _KINDS[road.scheme])
            self.sock.settimeout(PATIENCE)
            self.sock.connect(road.path)
        self.number = 0
        self.welcome: dict[str, Any] = {}
        #: frames that came and were passed over by ``expect``
        self.passed: list[Frame] = []
        self._held = b""
        self._ready: collections.deque[Frame] = collections.deque()
        self._fds: list[tuple[int, ...]] = []
        self._owned: list[int] = []
        if greet:
            try:
                self.greet(features)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket and every descriptor that came."""
        self.sock.close()
        for fd in self._owned:
            os.close(fd)
        self._owned.clear()

    # Sending

    def send(self, data: bytes, fds: Sequence[int] = ()) -> bool:
        """Send in one sendmsg, and what is left over of it behind; False when the other side takes it not."""
        try:
            if data is SHUTDOWN:
                self.sock.shutdown(socket.SHUT_WR)
                return True
            if not fds:
                self.sock.sendall(data)
                return True
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
            sent = self.sock.sendmsg([data], [rights])
            if sent < len(data):
                self.sock.sendall(data[sent:])
        except _REFUSED:
            return False
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # shutdown of what was reset
                raise
            return False
        return True

    def frame(
        self, kind: Kind, topic: str | bytes = b"", payload: bytes = b"\xc0", correlation: int = 0, **more: int
    ) -> bytes:
        """A frame of this peer's with its payload as given."""
        raw = topic.encode() if isinstance(topic, str) else topic
        return encode(kind, topic=raw, payload=payload, correlation=correlation, **{"sender": self.number, **more})

    def control(self, kind: Kind, body: object = None, correlation: int = 0, topic: str = "") -> bytes:
        """A frame of this peer's whose body is a msgpack object."""
        return control(kind, body, correlation=correlation, sender=self.number, topic=topic.encode())

    def greet(self, features: Sequence[str] | None = None) -> None:
        """The handshake."""
        wanted = features if features is not None else ("fds",) if self.carries_fds else ()
        assert self.send(hello(features=wanted))
        self.welcome = self.expect(Kind.WELCOME).body
        self.number = self.welcome["peer"]

    # What an honest client does

    def subscribe(
        self,
        pattern: str,
        number: int = 1,
        credit: Sequence[int] = (1000, 1 << 20, 64),
        *,
        group: str | None = None,
        fds: str = "reject",
        **more: object,
    ) -> None:
        """Subscribe, and wait until it is in force."""
        self.send(self.subscription(pattern, number, credit, group=group, fds=fds, **more))
        assert self.expect(Kind.OK).correlation == number

    def subscription(
        self,
        pattern: str,
        number: int = 1,
        credit: Sequence[int] = (1000, 1 << 20, 64),
        *,
        group: str | None = None,
        fds: str = "reject",
        **more: object,
    ) -> bytes:
        """A SUBSCRIBE frame."""
        options = {"group": group, "credit": list(credit), "fds": fds, **more}
        return self.control(Kind.SUBSCRIBE, options, correlation=number, topic=pattern)

    def serve(self, pattern: str, number: int = 1, concurrency: int = 64) -> None:
        """Serve, and wait until it is in force."""
        self.send(self.control(Kind.SERVE, {"concurrency": concurrency}, correlation=number, topic=pattern))
        assert self.expect(Kind.OK).correlation == number

    def settle(self, number: int = 999_999) -> None:
        """Wait until the broker has worked through all that was sent, and has taken over what was published."""
        self.send(self.control(Kind.FLUSH, correlation=number))
        while self.expect(Kind.OK).correlation != number:
            continue

    def request(self, topic: str, payload: object = None, number: int = 777_777) -> Any:
        """Ask, and wait for the reply's payload."""
        self.send(self.control(Kind.REQUEST, payload, correlation=number, topic=topic))
        assert self.expect(Kind.ANSWER).correlation == number
        reply = self.expect(Kind.REPLY)
        content = reply.content
        if reply.flags & Flag.PIECED:
            (total,) = struct.unpack_from(">Q", content)
            content = content[8:]
            while len(content) < total:
                content += self.expect(Kind.PIECE).content
        return msgpack.unpackb(content)

    # Receiving

    def expect(self, *kinds: Kind) -> Frame:
        """The next frame of these kinds; others before it are passed over. AssertionError when the link ends first."""
        while (frame := self.next()) is not END:
            if frame.kind in kinds:
                return frame
            self.passed.append(frame)
        raise AssertionError(f"the link ended, where {kinds} should have come; before it came {self.passed}")

    def until_end(self) -> list[Frame]:
        """All frames until the connection has ended."""
        return list(iter(self.next, END))

    def next(self) -> Frame | None:
        """The next frame, or END."""
        while not self._ready:
            data = self._receive()
            if not data:
                assert not self._held, "the broker's stream ended inside a frame"
                return END
            self._held += data
            self._ready.extend(self._split())
        return self._ready.popleft()

    def _receive(self) -> bytes:
        if not self.carries_fds:
            try:
                return self.sock.recv(1 << 18)
            except ConnectionResetError:
                return b""
        for _ in range(2):
            try:
                data, ancillary, flags, _ = self.sock.recvmsg(1 << 18, _ROOM, socket.MSG_CMSG_CLOEXEC)
                break
            except ConnectionResetError:
                # Said once, before what the other side had sent is handed over.
                continue
        else:
            return b""
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        for _, _, content in ancillary:
            fds = tuple(array.array("i", content))
            self._owned.extend(fds)
            self._fds.append(fds)
        return data

    def _split(self) -> Iterator[Frame]:
        held, start = self._held, 0
        while start + _PREFIX.size <= len(held):
            tag, length, ext, kind, nfds, flags, topic_length, sender, correlation = _PREFIX.unpack_from(held, start)
            assert (tag, ext) == (0xC9, 83)
            end = start + length + 6
            if end > len(held):
                break
            at = start + _PREFIX.size + topic_length
            topic, content = held[start + _PREFIX.size : at].decode(), held[at:end]
            start = end
            fds = self._fds.pop(0) if nfds and self.carries_fds and "fds" in self.welcome.get("features", ()) else ()
            assert len(fds) in (0, nfds)
            yield Frame(Kind(kind), nfds, flags, sender, correlation, topic, content, fds)
        self._held = held[start:]
