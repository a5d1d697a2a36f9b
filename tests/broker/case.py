"""What one row of the table of bad input is made of.

A row's steps are made for the peer that sends them, for it knows its number. Each step is one ``sendmsg``: bytes, bytes
with descriptors (``With``), or ``SHUTDOWN``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sockbus.protocol.frame import Flag, Kind
from tests.broker.raw import Raw, hello, pieced

__all__ = [
    "ANY",
    "STREAMS",
    "TOPIC",
    "UNIX",
    "Case",
    "Step",
    "With",
    "first_frame",
    "padded_hello",
    "piece",
    "serving",
]

UNIX = ("seqpacket", "stream")


STREAMS = ("stream", "tcp")


ANY = ("seqpacket", "stream", "tcp")


TOPIC = "bad.input"


@dataclass(frozen=True, slots=True)
class With:
    """Bytes with so many files, or with the peer's own socket."""

    data: bytes
    files: int = 0
    own_socket: bool = False


Step = bytes | With


Build = Callable[[Raw], Sequence[Step]]


@dataclass(frozen=True, slots=True)
class Case:
    """One row. ``code`` None: the connection is closed without an ERROR, and without a line in the log."""

    name: str
    build: Build
    code: str | None = "protocol"
    greet: bool = True
    on: Sequence[str] = ANY


def padded_hello(size: int) -> bytes:
    frame = hello(padding="")
    # A text of up to 65,535 bytes has two bytes of length more than one of up to 31.
    frame = hello(padding="x" * (size - len(frame) - 2))
    assert len(frame) == size
    return frame


def first_frame(peer: Raw, total: int = 100, part: bytes = b"x" * 10, kind: Kind = Kind.PUBLISH, **more: Any) -> bytes:
    values = {"topic": TOPIC, "correlation": 1, "flags": Flag.PIECED, **more}
    return peer.frame(kind, payload=pieced(total, part), **values)


def piece(peer: Raw, part: bytes = b"x" * 10, correlation: int = 1) -> bytes:
    return peer.frame(Kind.PIECE, payload=part, correlation=correlation)


def serving(peer: Raw, number: int = 901, concurrency: int = 1) -> bytes:
    return peer.control(Kind.SERVE, {"concurrency": concurrency}, correlation=number, topic=TOPIC)
