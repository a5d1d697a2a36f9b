"""Messages larger than a frame: cutting them up, and putting the parts together.

docs/wire.md, "Pieces". An ``Assembly`` keeps the frames as they came, for a broker that forwards them, and can join the
payload, for a client that hands it on. It never holds more than the total that its first frame stated, in a number of
pieces that is in proportion to it; whoever starts one has checked that total against ``message_bytes``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from ..errors import MessageTooLarge, ProtocolError
from ..fd import close_fds
from .frame import HEADER_LENGTH, MAX_FRAME, PREFIX_BYTES, TOTAL, Flag, Kind, encode
from .inbox import MAX_RUN, Run

__all__ = ["MAX_HEADERS", "Assemblies", "Assembly", "cut", "message_cost"]

# How many pieces a message may come in: a frame costs more to keep than the payload that it is charged for, so that one
# byte at a time 64 MiB would become gigabytes.
MIN_PIECES = 16
BYTES_A_PIECE = 1024
# What a first frame has room for besides the longest topic and one byte of payload.
MAX_HEADERS = MAX_FRAME - PREFIX_BYTES - 255 - TOTAL.size - HEADER_LENGTH.size - 1


def cut(
    kind: int,
    topic: bytes,
    payload: bytes,
    *,
    sender: int,
    correlation: int,
    headers: bytes = b"",
    fds: int = 0,
    flags: int = 0,
) -> list[bytes]:
    """The frames of one message: one, or a first and its pieces when it would exceed a frame (correlation ≠ 0 then).

    MessageTooLarge when the first frame has no room for its headers.
    """
    if not headers and len(payload) + len(topic) <= MAX_FRAME - PREFIX_BYTES:
        return [encode(kind, topic, payload, sender, correlation, fds, flags)]
    front = b""
    if len(headers) > MAX_HEADERS:
        raise MessageTooLarge(
            f"headers of {len(headers)} bytes do not fit into one frame, which takes {MAX_HEADERS}; "
            f"put data into the payload"
        )
    if headers:
        flags |= Flag.HEADERS
        front = HEADER_LENGTH.pack(len(headers)) + headers
    room = MAX_FRAME - PREFIX_BYTES - len(topic) - len(front)
    if len(payload) > room:
        front = TOTAL.pack(len(payload)) + front
        room -= TOTAL.size
        flags |= Flag.PIECED
    first = encode(
        kind,
        topic=topic,
        payload=front + payload[:room],
        sender=sender,
        correlation=correlation,
        fds=fds,
        flags=flags,
    )
    step = MAX_FRAME - PREFIX_BYTES
    return [first] + [
        encode(Kind.PIECE, payload=payload[at : at + step], sender=sender, correlation=correlation)
        for at in range(room, len(payload), step)
    ]


def message_cost(first: Run, total: int, payload_at: int) -> int:
    """What a message counts in credit and windows: its first frame and the payload bytes of its pieces."""
    return payload_at - first.start + total


@final
class Assembly:
    """One message on its way in; ``fds`` of its first frame are owned by whoever owns this."""

    __slots__ = ("_max_pieces", "_payload_at", "cost", "first", "frames", "headers", "missing", "total")

    def __init__(self, first: Run, total: int, headers: bytes, payload_at: int) -> None:
        self.first = first
        self.headers = headers
        self.total = total
        self.cost = message_cost(first, total, payload_at)
        self.frames = [first.data]
        self.missing = total - (first.end - payload_at)
        self._payload_at = payload_at - first.start
        # What else came with it must not stay as long as this does.
        first.buffer, first.start, first.end = self.frames[0], 0, len(self.frames[0])
        self._max_pieces = MIN_PIECES + total // BYTES_A_PIECE

    def add(self, piece: Run) -> bool:
        """Take the next piece; whether the message is whole. ProtocolError when it is empty or there are too many."""
        size = piece.end - piece.start - PREFIX_BYTES
        if not 0 < size <= self.missing:
            raise ProtocolError(
                f"a piece of {size} bytes came for message {self.first.correlation}, which lacks {self.missing} "
                f"of {self.total}; pieces add up to the total"
            )
        if len(self.frames) > self._max_pieces:
            raise ProtocolError(
                f"message {self.first.correlation} of {self.total} bytes comes in more than {self._max_pieces} pieces; "
                f"fill frames before starting the next"
            )
        self.frames.append(piece.data)
        self.missing -= size
        return self.missing == 0

    def joined(self) -> list[bytes]:
        """The frames of a whole message as they came, small ones in one slice, for each costs more than its bytes.

        One with descriptors stays alone, as an outbox wants it.
        """
        if len(self.frames) == 1:
            return self.frames
        slices: list[list[bytes]] = []
        size = MAX_RUN
        for frame in self.frames:
            if size + len(frame) > MAX_RUN:
                slices.append([])
                size = 0
            slices[-1].append(frame)
            size = MAX_RUN if frame is self.frames[0] and self.first.declared_fds else size + len(frame)
        return [b"".join(frames) for frames in slices]

    def payload(self) -> bytes:
        """The payload bytes of a whole message."""
        parts = [memoryview(self.frames[0])[self._payload_at :]]
        parts += [memoryview(frame)[PREFIX_BYTES:] for frame in self.frames[1:]]
        return b"".join(parts)


@final
class Assemblies:
    """Messages on their way in that are not whole, by sender and number, each with what to do when it is."""

    def __init__(self) -> None:
        self._started: dict[tuple[int, int], tuple[Assembly, Callable[[Assembly], None]]] = {}

    def start(self, assembly: Assembly, whole: Callable[[Assembly], None]) -> None:
        """The first frame came: go on at once with a message that is whole, else when it is."""
        if not assembly.missing:
            whole(assembly)
            return
        key = (assembly.first.sender, assembly.first.correlation)
        if key in self._started:
            raise ProtocolError(f"message {key[1]} of peer {key[0]} starts again before it is whole")
        self._started[key] = assembly, whole

    def on_piece(self, run: Run) -> None:
        """The next part of one of them."""
        key = (run.sender, run.correlation)
        if key not in self._started:
            raise ProtocolError(f"a piece came for message {key[1]} of peer {key[0]}, which was not started")
        assembly, whole = self._started[key]
        if assembly.add(run):
            del self._started[key]
            whole(assembly)

    def close(self) -> None:
        """Forget them, and close their fds."""
        for assembly, _ in self._started.values():
            close_fds(assembly.first.fds)
        self._started.clear()
