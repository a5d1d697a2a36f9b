"""Frames → batches; the owner of half-written bytes.

An ``Outbox`` keeps what one link still has to send, in three lanes: *control* frames, which are small and pass
everything; *calls* (requests and replies); *messages*. Calls and messages take turns, so that a message of many
pieces delays a reply by one batch at most. Within a lane the order is kept.

A batch is what one ``sendmsg`` takes: for a record socket at most 64 KiB of whole frames, for a stream up to
``STREAM_BATCH`` bytes; a frame with descriptors is alone in its batch. What a write left over stays here and goes
first, so that a cancelled task, or none at all, cannot tear a frame.
"""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterator
from typing import final

from ..fd import SharedFds
from .frame import LENGTH, LENGTH_OFFSET, MAX_FRAME, Kind

__all__ = ["COPIED_BYTES", "Batch", "Lane", "Outbox"]

# A default UNIX socket takes 212,992 bytes, with its overhead; a larger batch would mostly come back as a rest.
STREAM_BATCH = 2 * MAX_FRAME
# Below this size, copying into one buffer costs less than another entry in sendmsg's vector.
COPIED_BYTES = 4096

Buffer = bytes | bytearray | memoryview


class Lane(enum.IntEnum):
    """Where a frame queues."""

    CONTROL = 0
    MESSAGES = 1
    CALLS = 2


@final
class Batch:
    """Buffers for one ``sendmsg``, and the descriptors that go with its first byte."""

    __slots__ = ("buffers", "fds", "size")

    def __init__(self, buffers: list[Buffer], size: int, fds: SharedFds | None) -> None:
        self.buffers = buffers
        self.size = size
        self.fds = fds


@final
class _Chunk:
    __slots__ = ("data", "fds")

    def __init__(self, data: bytes | bytearray, fds: SharedFds | None) -> None:
        self.data = data
        self.fds = fds


class _Queue:
    """One lane: chunks of whole frames, small ones joined."""

    __slots__ = ("added", "chunks", "size", "taken")

    def __init__(self) -> None:
        self.chunks: collections.deque[_Chunk] = collections.deque()
        self.size = 0
        # Chunks that were ever added and taken: what is behind a frame that is to leave last.
        self.added = 0
        self.taken = 0

    def put(self, data: bytes, fds: SharedFds | None) -> None:
        size = len(data)
        self.size += size
        if fds is None and self.chunks:
            last = self.chunks[-1]
            joined = len(last.data) + size
            if last.fds is None and size <= COPIED_BYTES and joined <= MAX_FRAME:
                if type(last.data) is bytearray:
                    last.data += data
                    return
                if joined <= COPIED_BYTES:
                    last.data = bytearray(last.data)
                    last.data += data
                    return
        self.added += 1
        # What grows is a bytearray; a frame with descriptors never is one, for nothing may join it.
        grows = fds is None and size <= COPIED_BYTES and bool(self.chunks)
        self.chunks.append(_Chunk(bytearray(data) if grows else data, fds))

    def pop(self) -> _Chunk:
        chunk = self.chunks.popleft()
        self.taken += 1
        self.size -= len(chunk.data)
        return chunk


class Outbox:
    """What one link still has to send. ``records``: whether each batch becomes one record."""

    def __init__(self, *, records: bool) -> None:
        self._batch_bytes = MAX_FRAME if records else STREAM_BATCH
        self._lanes = (_Queue(), _Queue(), _Queue())
        self._last: collections.deque[tuple[list[int], bytes]] = collections.deque()
        self._turn = Lane.MESSAGES
        self._batch: Batch | None = None
        #: nothing is queued any more
        self.is_closed = False
        #: bytes that the kernel has not taken
        self.queued_bytes = 0

    def put(self, lane: Lane, data: bytes, fds: SharedFds | None = None) -> None:
        """Whole frames, at most 64 KiB of them; with ``fds`` exactly one, and one hold on them passes to the outbox."""
        if self.is_closed:
            if fds is not None:
                fds.release()
            return
        self.queued_bytes += len(data)
        self._lanes[lane].put(data, fds)

    def put_alone(self, lane: Lane, frame: bytes, fds: SharedFds | None) -> None:
        """``put`` of one frame where nothing is queued, and which leaves at once: as a batch of its own."""
        if self.is_closed or self.queued_bytes:
            self.put(lane, frame, fds)
            return
        queue = self._lanes[lane]
        queue.added += 1
        queue.taken += 1
        self.queued_bytes = len(frame)
        self._batch = Batch([frame], len(frame), fds)

    def put_small(self, frame: bytes, size: int) -> None:
        """``put`` of one small message of ``size`` bytes, for publishers: a third of what a publish costs was there."""
        lane = self._lanes[1]
        if lane.chunks:
            last = lane.chunks[-1].data
            if type(last) is bytearray and len(last) + size <= MAX_FRAME and size <= COPIED_BYTES:
                last += frame
                lane.size += size
                self.queued_bytes += size
                return
        self.put(Lane.MESSAGES, frame)

    def put_last(self, frame: bytes) -> None:
        """A control frame that leaves only after all that is in the lanes now."""
        if self.is_closed:
            return
        self.queued_bytes += len(frame)
        self._last.append(([lane.added for lane in self._lanes], frame))

    def lane_bytes(self, lane: Lane) -> int:
        """Bytes in a lane that no batch has taken."""
        return self._lanes[lane].size

    def end_of(self, lane: Lane) -> int:
        """Where a lane ends now, for ``has_taken``."""
        return self._lanes[lane].added

    def has_taken(self, lane: Lane, end: int) -> bool:
        """Whether batches have taken all that was in a lane when it ended there."""
        return self._lanes[lane].taken >= end

    def batch(self) -> Batch | None:
        """What to send next: the rest of an unfinished batch, or a new one; None when nothing is left.

        It stays the same until ``sent``.
        """
        if self._batch is None and self.queued_bytes:
            self._batch = self._compose()
        return self._batch

    def sent(self, size: int) -> None:
        """The kernel took ``size`` bytes of the batch, more than 0, and with them its descriptors."""
        batch = self._batch
        if batch is None or not 0 < size <= batch.size:
            raise RuntimeError(f"{size} bytes were sent of a batch that is not there")
        self.queued_bytes -= size
        if batch.fds is not None:
            batch.fds.release()
            batch.fds = None
        batch.size -= size
        if batch.size:
            whole = batch.buffers[0] if len(batch.buffers) == 1 else b"".join(batch.buffers)
            batch.buffers = [memoryview(whole)[size:]]
        else:
            self._batch = None

    def drop_lanes(self) -> None:
        """Forget what no batch has taken, and let go of its descriptors; a batch that was made still leaves whole."""
        self._last.clear()
        for lane in self._lanes:
            while lane.chunks:
                fds = lane.pop().fds
                if fds is not None:
                    fds.release()
        self.queued_bytes = self._batch.size if self._batch is not None else 0

    def count_publishes(self) -> int:
        """How many publishes have not left whole; their pieces are not counted."""
        buffers = list(self._batch.buffers) if self._batch is not None else []
        buffers += [chunk.data for chunk in self._lanes[Lane.MESSAGES].chunks]
        return sum(map(_count_publishes, buffers))

    def unwritten(self) -> Iterator[tuple[Buffer, SharedFds | None]]:
        """Take out the messages that no write has begun with, as whole frames; holds on descriptors pass to the caller.

        What else was in the unfinished batch comes with them.
        """
        batch, self._batch = self._batch, None
        if batch is not None:
            data, at = b"".join(batch.buffers), 0
            if isinstance(batch.buffers[0], memoryview):
                # The rest of one that was begun: from its first frame on that was not.
                data = bytes(batch.buffers[0].obj)
                while at < len(data) - batch.size:
                    at += LENGTH_OFFSET + LENGTH.unpack_from(data, at + 1)[0]
            fds, batch.fds = batch.fds, None
            yield data[at:], fds
        lane = self._lanes[Lane.MESSAGES]
        while lane.chunks:
            chunk = lane.pop()
            yield chunk.data, chunk.fds

    def close(self) -> None:
        """Forget everything and let go of all descriptors, also of those that are still to be put."""
        self.is_closed = True
        batch, self._batch = self._batch, None
        if batch is not None and batch.fds is not None:
            batch.fds.release()
        self.drop_lanes()

    def _compose(self) -> Batch:
        if self._last:
            self._release_last()
        buffers: list[Buffer] = []
        room = self._batch_bytes
        first, second = self._turn, Lane.MESSAGES if self._turn is Lane.CALLS else Lane.CALLS
        control = self._lanes[Lane.CONTROL]
        for lane in (control, self._lanes[first], self._lanes[second]):
            if control.chunks and lane is not control:
                # The next frame of a message may rely on a control frame that found no room in this batch.
                return Batch(buffers, self._batch_bytes - room, None)
            while lane.chunks:
                chunk = lane.chunks[0]
                if len(chunk.data) > room or (chunk.fds is not None and buffers):
                    break
                lane.pop()
                buffers.append(chunk.data)
                room -= len(chunk.data)
                if chunk.fds is not None:
                    self._turn = second
                    return Batch(buffers, len(chunk.data), chunk.fds)
        # The other lane comes first only where this one could not be emptied; else what was put first leaves first.
        self._turn = second if self._lanes[first].chunks else Lane.MESSAGES
        return Batch(buffers, self._batch_bytes - room, None)

    def _release_last(self) -> None:
        while self._last:
            marks, frame = self._last[0]
            if any(lane.taken < mark for lane, mark in zip(self._lanes, marks, strict=True)):
                return
            self._last.popleft()
            self._lanes[Lane.CONTROL].put(frame, None)


def _count_publishes(data: Buffer) -> int:
    whole, begun = bytes(data), 0
    if isinstance(data, memoryview):
        # The rest of a batch; a frame of which some has left has not left whole.
        whole = bytes(data.obj)
        begun = len(whole) - len(data)
    count = at = 0
    while at < len(whole):
        after = at + LENGTH_OFFSET + LENGTH.unpack_from(whole, at + 1)[0]
        count += after > begun and whole[at + LENGTH_OFFSET] == Kind.PUBLISH
        at = after
    return count
