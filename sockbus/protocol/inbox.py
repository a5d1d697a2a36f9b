"""Bytes and file descriptors → frames.

The law of this room: *any chunking of the same bytes yields the same frames, or the same error*. An ``Inbox`` finds
whole frames, checks everything that a prefix can show, and hands each frame exactly the descriptors that it
declares. It refuses a length before anything is allocated for it, holds at most one unfinished frame, and owns the
descriptors that no frame has claimed yet; ``close`` closes them. (The kernel does not say with which byte of a chunk
descriptors came. How many frames come out before a violation of *their* rules may therefore depend on the chunks.)

Plain publishes of one topic that stand in a row come out as one ``Run``, so that what follows costs per run and not
per message (``python -m benchmarks throughput`` is what earned it).
"""

from __future__ import annotations

import collections
import struct
from collections.abc import Iterator, Sequence
from typing import NoReturn, final

from ..errors import MessageTooLarge, PayloadError, ProtocolError, TooManyFds
from ..fd import close_fds
from .frame import (
    ALLOWED_FLAGS,
    EXT32,
    EXT_TYPE,
    FDS_OFFSET,
    FORWARDED,
    HEADER_LENGTH,
    LENGTH_OFFSET,
    MAX_FRAME,
    MIN_FRAME,
    PREFIX,
    PREFIX_BYTES,
    TOPIC_LENGTH_OFFSET,
    TOPICAL,
    TOTAL,
    Flag,
    Kind,
)

__all__ = ["MAX_RUN", "Inbox", "Run", "fit", "topics"]

# A run and the frame in front of it fit into one record.
MAX_RUN = MAX_FRAME - 64
TAG_LENGTH = struct.Struct(">BI")
# From the ext type byte on, the prefixes of frames that differ in length only are the same.
_ALIKE = 5
_PUBLISH = int(Kind.PUBLISH)
_PIECED = int(Flag.PIECED)
_HEADERS = int(Flag.HEADERS)
_NUMBERED = int(Flag.PIECED | Flag.RECEIPT | Flag.RETAIN)


@final
class Run:
    """``count`` whole frames in a row, alike in all but length and payload; nearly every run is one frame.

    ``fds`` are owned by whoever holds the run. ``declared_fds`` differs from their number only where the link
    carries none.
    """

    __slots__ = (
        "buffer", "correlation", "count", "declared_fds", "end", "fds", "flags", "kind", "sender", "start", "topic",
    )  # fmt: skip

    def __init__(
        self,
        buffer: bytes,
        start: int,
        end: int,
        kind: int,
        topic: bytes,
        sender: int,
        correlation: int = 0,
        flags: int = 0,
        declared_fds: int = 0,
        fds: tuple[int, ...] = (),
        count: int = 1,
    ) -> None:
        self.buffer = buffer
        self.start = start
        self.end = end
        self.kind = kind
        self.topic = topic
        self.sender = sender
        self.correlation = correlation
        self.flags = flags
        self.declared_fds = declared_fds
        self.fds = fds
        self.count = count

    @property
    def data(self) -> bytes:
        """The frames' bytes as they came."""
        return self.buffer[self.start : self.end]

    @property
    def body(self) -> bytes:
        """Everything behind the topic of a single frame."""
        return self.buffer[self.start + PREFIX_BYTES + len(self.topic) : self.end]

    def payload_sizes(self) -> Iterator[int]:
        """The payload bytes of each frame of a run of plain messages."""
        at, head = self.start, PREFIX_BYTES + len(self.topic)
        while at < self.end:
            size = LENGTH_OFFSET + TAG_LENGTH.unpack_from(self.buffer, at)[1]
            yield size - head
            at += size

    def parts(self) -> tuple[int, bytes, int]:
        """Of a single frame that starts a message: total payload bytes, header bytes, offset of the payload.

        Raises ProtocolError or PayloadError when they do not fit into the frame or do not agree with it.
        """
        at = self.start + PREFIX_BYTES + len(self.topic)
        total = -1
        headers = b""
        if self.flags & _PIECED:
            if at + TOTAL.size > self.end:
                raise ProtocolError("a pieced frame ends inside its total; send 8 bytes of it")
            (total,) = TOTAL.unpack_from(self.buffer, at)
            at += TOTAL.size
        if self.flags & _HEADERS:
            if at + HEADER_LENGTH.size > self.end:
                raise PayloadError("a frame ends inside the length of its headers; send 2 bytes of it")
            (length,) = HEADER_LENGTH.unpack_from(self.buffer, at)
            at += HEADER_LENGTH.size
            if at + length > self.end:
                raise PayloadError(f"headers of {length} bytes go beyond the end of their frame; mend the length")
            headers = self.buffer[at : at + length]
            at += length
        here = self.end - at
        if total < 0:
            return here, headers, at
        if not 0 < here < total:
            raise ProtocolError(
                f"a pieced message of {total} bytes starts with {here} of them; its first frame holds at least 1 "
                f"byte and less than all"
            )
        return total, headers, at


def fit(buffer: bytes | bytearray, start: int, end: int, messages: int, size: int) -> tuple[int, int]:
    """How many of the frames in ``buffer[start:end]`` may start with credit for ``messages`` and ``size`` bytes.

    Returns their number and where they end; the last may overdraw the bytes (docs/wire.md, "Credit").
    """
    count, at, stop = 0, start, start + size
    while at < end and count < messages and at < stop:
        at += LENGTH_OFFSET + TAG_LENGTH.unpack_from(buffer, at)[1]
        count += 1
    return count, at


def topics(buffer: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Of each frame in ``buffer[start:end]`` its topic, and where it starts and ends."""
    at = start
    while at < end:
        topic = at + PREFIX_BYTES
        after = at + LENGTH_OFFSET + TAG_LENGTH.unpack_from(buffer, at)[1]
        yield buffer[topic : topic + buffer[at + TOPIC_LENGTH_OFFSET]], at, after
        at = after


class Inbox:
    """What came on one link and is not yet understood.

    ``carries_fds``: whether descriptors can come; ``fds_may_miss``: whether a frame may declare more than come (a
    client whose link carries none); ``max_fds``: of one frame; ``max_frame``: bytes of one frame; ``record``:
    whether what comes in one piece ends with a whole frame (SEQPACKET).
    """

    def __init__(
        self,
        *,
        carries_fds: bool,
        fds_may_miss: bool = False,
        max_fds: int = 253,
        max_frame: int = MAX_FRAME,
        record: bool = False,
    ) -> None:
        self.carries_fds = carries_fds
        self.fds_may_miss = fds_may_miss
        self.max_fds = max_fds
        self.max_frame = max_frame
        self.record = record
        self._rest = b""
        self._closed = False
        self._groups: collections.deque[tuple[int, ...]] = collections.deque()

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of a frame that has not come whole."""
        return len(self._rest)

    def close(self) -> None:
        """Close the descriptors that no frame claimed, and those that still come; forget the unfinished frame."""
        self._closed = True
        self._rest = b""
        while self._groups:
            close_fds(self._groups.popleft())

    def end(self) -> None:
        """Nothing more comes: ProtocolError when that is in the middle of a frame."""
        if self._rest:
            raise ProtocolError(f"the connection ended inside a frame, after {len(self._rest)} bytes of it")
        if self._groups:
            raise ProtocolError("the connection ended with file descriptors that no frame declared")

    def receive(self, data: bytes, fds: Sequence[int] = ()) -> Iterator[Run]:
        """The whole frames that ``data`` completes, in order; consume it to the end before the next call.

        The descriptors belong to the inbox as soon as the first frame is asked for. Raises ProtocolError,
        MessageTooLarge or TooManyFds at the first frame that is not as specified; the link is of no use then.
        Nothing comes any more after ``close``.
        """
        if self._closed:
            close_fds(fds)
            return
        if fds:
            self._groups.append(tuple(fds))
            if len(fds) > self.max_fds:
                # Before their frame is whole, or an unfinished frame would hold 253 of them for as long as it may last.
                raise TooManyFds(f"{len(fds)} file descriptors came at once; message_fds = {self.max_fds}")
        if self.record and len(data) > MAX_FRAME:
            raise ProtocolError(f"a record of {len(data)} bytes came; {MAX_FRAME} are allowed")
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        unpack = PREFIX.unpack_from
        while end - at >= PREFIX_BYTES:
            tag, length, ext_type, kind, nfds, flags, topic_length, sender, correlation = unpack(data, at)
            size = length + LENGTH_OFFSET
            if tag != EXT32 or ext_type != EXT_TYPE or not MIN_FRAME <= size <= self.max_frame:
                self._refuse(tag, ext_type, size)
            if (kind != _PUBLISH or nfds or flags or correlation) and (
                nfds or flags or topic_length or kind not in ALLOWED_FLAGS
            ):
                self._check(kind, nfds, flags, topic_length, correlation)
            if PREFIX_BYTES + topic_length > size:
                raise ProtocolError(f"a topic of {topic_length} bytes goes beyond its frame of {size}")
            if at + size > end:
                break
            topic = data[at + PREFIX_BYTES : at + PREFIX_BYTES + topic_length]
            if kind == _PUBLISH and not (nfds or flags or correlation):
                start, (at, count) = at, self._alike(data, at, size, PREFIX_BYTES + topic_length)
                yield Run(data, start, at, kind, topic, sender, count=count)
            else:
                start, at = at, at + size
                claimed = self._claim(nfds) if nfds else ()
                yield Run(data, start, at, kind, topic, sender, correlation, flags, nfds, claimed)
        if at < end:
            self._keep(data[at:] if at else data, may_have_fds=bool(fds) or not at)
        elif self._groups:
            raise ProtocolError("file descriptors came that no frame declares; declare them in the frame's prefix")

    def _alike(self, data: bytes, at: int, size: int, prefix_size: int) -> tuple[int, int]:
        """Where the run that starts at ``at`` ends, and its count of frames."""
        limit = min(len(data), at + MAX_RUN)
        prefix = data[at : at + prefix_size]
        alike = prefix[_ALIKE:]
        starts = data.startswith
        at += size
        count = 1
        while at < limit:
            if starts(prefix, at):
                after = at + size
            elif at + prefix_size <= limit and starts(alike, at + _ALIKE):
                tag, length = TAG_LENGTH.unpack_from(data, at)
                after = at + length + LENGTH_OFFSET
                if tag != EXT32 or not prefix_size <= length + LENGTH_OFFSET <= self.max_frame:
                    break
            else:
                break
            if after > limit:
                break
            at = after
            count += 1
        return at, count

    def _claim(self, nfds: int) -> tuple[int, ...]:
        if not self.carries_fds:
            return ()
        self._match(nfds)
        return self._groups.popleft()

    def _match(self, nfds: int) -> None:
        came = len(self._groups[0]) if self._groups else 0
        if came != nfds:
            raise ProtocolError(
                f"a frame declares {nfds} file descriptors and {came} came with it; send them with its first byte"
            )

    def _refuse(self, tag: int, ext_type: int, size: int) -> NoReturn:
        if tag != EXT32:
            raise ProtocolError(f"byte 0x{tag:02x} does not begin a frame; frames are msgpack ext 83")
        if ext_type != EXT_TYPE:
            raise ProtocolError(f"msgpack ext type {ext_type} is no frame; frames are ext 83")
        if size < MIN_FRAME:
            raise ProtocolError(f"a frame states a size of {size} bytes, which is less than its own prefix")
        raise MessageTooLarge(
            f"a frame states a size of {size} bytes; {self.max_frame} are allowed, larger messages travel in pieces"
        )

    def _check(self, kind: int, nfds: int, flags: int, topic_length: int, correlation: int) -> None:
        allowed = ALLOWED_FLAGS.get(kind)
        if allowed is None:
            raise ProtocolError(f"frame kind {kind} does not exist in version 1")
        if flags & ~allowed:
            raise ProtocolError(f"reserved flags 0x{flags & ~allowed:02x} are set on a {Kind(kind).name} frame")
        if flags & _NUMBERED and not correlation:
            raise ProtocolError(
                f"a {Kind(kind).name} frame that is in pieces, kept or to be answered needs a number; it has none"
            )
        if topic_length and kind not in TOPICAL:
            raise ProtocolError(f"a {Kind(kind).name} frame has no topic, but states {topic_length} bytes of one")
        if nfds:
            if kind not in FORWARDED:
                raise ProtocolError(f"a {Kind(kind).name} frame declares {nfds} file descriptors; it carries none")
            if nfds > self.max_fds:
                raise TooManyFds(f"a frame declares {nfds} file descriptors; message_fds = {self.max_fds}")
            if not self.carries_fds and not self.fds_may_miss:
                raise TooManyFds(f"a frame declares {nfds} file descriptors on a link that carries none")

    def _keep(self, rest: bytes, *, may_have_fds: bool) -> None:
        """An unfinished frame. ``may_have_fds``: descriptors that wait came with this chunk, or with its start."""
        if rest[0] != EXT32:
            self._refuse(rest[0], 0, 0)
        if self.record:
            raise ProtocolError(f"a record ends inside a frame, after {len(rest)} bytes of it")
        if self._groups and (len(self._groups) > 1 or not may_have_fds):
            raise ProtocolError("file descriptors came that no frame declares; declare them in the frame's prefix")
        if len(rest) >= PREFIX_BYTES:
            self._match(rest[FDS_OFFSET] if self.carries_fds else 0)
        self._rest = rest
