"""The layout of a frame, its kinds and flags, and how one is written.

docs/wire.md, "Frame", is the specification; this room and that page change together. Reading is done by ``inbox``,
which finds whole frames in what came; here is only the arithmetic that both sides share. No field is ever guessed: a
frame that is not exactly as specified has no meaning.
"""

from __future__ import annotations

import enum
import struct

from ..payload import encode_payload

__all__ = [
    "EXT32",
    "EXT_TYPE",
    "FORWARDED",
    "MAX_FRAME",
    "MIN_FRAME",
    "PREFIX",
    "PREFIX_BYTES",
    "TOTAL",
    "Flag",
    "Kind",
    "control",
    "encode",
    "head",
    "stamp",
    "stamped",
]

#: 0xC9, length, ext type, kind, fds, flags, topic length, sender, correlation
PREFIX = struct.Struct(">BIbBBBBQQ")
PREFIX_BYTES = PREFIX.size
TOTAL = struct.Struct(">Q")
#: the body of DELIVER, [count, lost], in a fixed width: msgpack allows the longer form of a small integer
DELIVER_COUNTS = struct.Struct(">BBIBI")
HEADER_LENGTH = struct.Struct(">H")
EXT32 = 0xC9
EXT_TYPE = 83
MIN_FRAME = PREFIX_BYTES
# 64 KiB is far below the largest SEQPACKET record of a default socket (212,960 bytes) and large enough that the cost
# of a frame vanishes beside that of copying it.
MAX_FRAME = 1 << 16
# The length field counts from behind the ext type byte.
LENGTH_OFFSET = 6
FDS_OFFSET = 7
FLAGS_OFFSET = 8
TOPIC_LENGTH_OFFSET = 9
SENDER_OFFSET = 10
SENDER = struct.Struct(">Q")
LENGTH = struct.Struct(">I")


class Kind(enum.IntEnum):
    """What a frame is; the numbers of docs/wire.md."""

    HELLO = 1
    WELCOME = 2
    ERROR = 3
    GOODBYE = 4
    OK = 5
    SUBSCRIBE = 16
    UNSUBSCRIBE = 17
    CREDIT = 18
    SERVE = 19
    UNSERVE = 20
    WILL = 21
    PUBLISH = 32
    PIECE = 33
    RECEIPT = 34
    DELIVER = 35
    REQUEST = 36
    CALL = 37
    REPLY = 38
    ANSWER = 39
    CANCEL = 40
    WINDOW = 48
    FLUSH = 49
    PEER = 50
    GONE = 51
    RECEIVED = 52
    WATCH = 53
    UNWATCH = 54


class Flag(enum.IntEnum):
    """Bits of the flags byte; any other bit is reserved and zero."""

    HEADERS = 1
    PIECED = 2
    FAILED = 4
    RECEIPT = 8
    RETAIN = 16


#: kind → the flag bits that it may have
ALLOWED_FLAGS: dict[int, int] = dict.fromkeys(map(int, Kind), 0) | {
    int(Kind.PUBLISH): int(Flag.HEADERS | Flag.PIECED | Flag.RECEIPT | Flag.RETAIN),
    int(Kind.REQUEST): int(Flag.HEADERS | Flag.PIECED),
    int(Kind.REPLY): int(Flag.HEADERS | Flag.PIECED | Flag.FAILED),
    int(Kind.DELIVER): int(Flag.RETAIN),
    int(Kind.WILL): int(Flag.RETAIN),
}

#: the kinds that start a message and may carry fds, a topic's payload and headers
FORWARDED = frozenset((int(Kind.PUBLISH), int(Kind.REQUEST), int(Kind.REPLY)))
#: the kinds whose topic field is used
TOPICAL = frozenset(
    int(kind) for kind in (Kind.PUBLISH, Kind.REQUEST, Kind.SUBSCRIBE, Kind.SERVE, Kind.WILL, Kind.WATCH)
)


def head(kind: int, topic: bytes, sender: int, correlation: int = 0, fds: int = 0, flags: int = 0) -> bytes:
    """A prefix and topic with a length that counts no more than themselves."""
    return encode(kind, topic=topic, sender=sender, correlation=correlation, fds=fds, flags=flags)


def encode(
    kind: int,
    topic: bytes = b"",
    payload: bytes = b"",
    sender: int = 0,
    correlation: int = 0,
    fds: int = 0,
    flags: int = 0,
) -> bytes:
    """One frame. ``payload`` is everything behind the topic: total and headers first, where the flags say so."""
    length = PREFIX_BYTES - LENGTH_OFFSET + len(topic) + len(payload)
    return PREFIX.pack(EXT32, length, EXT_TYPE, kind, fds, flags, len(topic), sender, correlation) + topic + payload


def stamp(frames: bytearray, sender: int) -> None:
    """Let whole frames name another sender."""
    at, end = 0, len(frames)
    while at < end:
        SENDER.pack_into(frames, at + SENDER_OFFSET, sender)
        at += LENGTH_OFFSET + LENGTH.unpack_from(frames, at + 1)[0]


def stamped(frame: bytes, sender: int) -> bytes:
    """A frame that names another sender."""
    return frame[:SENDER_OFFSET] + SENDER.pack(sender) + frame[SENDER_OFFSET + SENDER.size :]


def control(
    kind: int, body: object = None, *, correlation: int = 0, sender: int = 0, topic: bytes = b"", flags: int = 0
) -> bytes:
    """One frame whose body is a msgpack object of the bus's own; PayloadError when it cannot be encoded."""
    return encode(kind, topic=topic, payload=encode_payload(body), sender=sender, correlation=correlation, flags=flags)
