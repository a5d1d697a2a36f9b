"""The writing side of a link: its outbox, its room, and the one task that waits for a full socket.

Frames queue here and leave at the end of a turn by a direct non-blocking send; a writer task exists only while the
socket is full. Who finds no room says so, and is called when there is some again.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, final

import trio

from ..errors import LimitExceeded, ProtocolError, SockbusError
from ..fd import SharedFds, close_fds
from ..protocol.frame import Kind, control
from ..protocol.outbox import Lane, Outbox
from ..transport.base import Blocked, Transport

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Mark", "Outlet"]

log = logging.getLogger("sockbus.broker")

# Sends in one flush before others run; the writer goes on.
FLUSH_SENDS = 16
# Bytes of answers and the like that may wait for a peer. One that takes none of them is not read meanwhile, for each of
# its frames could be one more: an ERROR is longer than the request that nobody serves.
ANSWER_BYTES = 1 << 20
# Seconds that the end of a link may take: sending the ERROR, and reading until the peer has read it.
LINGER = 1.0
# Of what an ERROR says, so that it fits where a peer has not introduced itself: docs/wire.md, "Limits".
ERROR_CHARACTERS = 240
# Receives of what a peer goes on sending after it was sent away.
LAST_READS = 64
# Seconds until a send is tried again that met a limit of the kernel's (ETOOMANYREFS): readiness does not show it.
LATER = 0.01


class Starved(Protocol):
    """Something that waits for room."""

    def progress(self) -> None: ...


@final
class Mark:
    """A place in the queue of messages. ``moved_at``: when the socket last moved before all that is in front had left.

    None while some of that has not left.
    """

    __slots__ = ("bytes", "chunks", "moved_at")

    def __init__(self) -> None:
        self.bytes = self.chunks = 0
        self.moved_at: float | None = None


@final
class Outlet:
    """What one peer is sent. ``broke`` is called when sending failed in a way that is not the peer's going."""

    def __init__(
        self, hub: Hub, transport: Transport, nursery: trio.Nursery, broke: Callable[[SockbusError], None]
    ) -> None:
        self.outbox = Outbox(records=transport.records)
        #: descriptors sent, and those of them that the peer said it has received
        self.fds_sent = self.fds_acknowledged = 0
        #: bytes that the socket took so far, and when it last took some of those that had waited for it
        self.sent_bytes = 0
        self.moved_at = -math.inf
        #: nothing can be sent any more; what the peer sent before it went is still to be read
        self.is_broken = False
        #: called when something has left
        self.drained: Callable[[], None] = lambda: None
        self._hub = hub
        self._transport = transport
        self._nursery = nursery
        self._broke = broke
        self._starved: dict[Starved, None] = {}
        # Those that are not passed.
        self._marks: dict[Mark, None] = {}
        self._is_writing = False
        self._moved = trio.lowlevel.ParkingLot()

    # Room

    def has_room(self, fds: int) -> bool:
        """Whether a publish may be queued; an empty queue takes anything."""
        if fds and not self._has_room_for_fds():
            return False
        return self.outbox.queued_bytes < self._hub.limits.link_queue_bytes

    def has_call_room(self, fds: int) -> bool:
        """Whether a request or reply may be queued."""
        if fds and not self._has_room_for_fds():
            return False
        return self.outbox.lane_bytes(Lane.CALLS) < self._hub.limits.call_window_bytes

    @property
    def is_behind(self) -> bool:
        """Whether so many answers wait for this peer that it is not to be read before it has taken some."""
        return self.outbox.lane_bytes(Lane.CONTROL) >= ANSWER_BYTES

    async def caught_up(self) -> None:
        """Wait until the peer has taken some of its answers, or never will."""
        while self.is_behind:
            await self._moved.park()

    def _has_room_for_fds(self) -> bool:
        return self.fds_sent - self.fds_acknowledged < self._hub.limits.link_fds

    def acknowledge_fds(self, total: int) -> None:
        """The peer has received so many descriptors since the handshake; ProtocolError when that cannot be."""
        if not self.fds_acknowledged <= total <= self.fds_sent:
            raise ProtocolError(f"RECEIVED names {total} file descriptors; {self.fds_sent} were sent")
        self.fds_acknowledged = total
        self.feed()

    def starve(self, waiting: Starved) -> None:
        """Let it progress when there is room again."""
        self._starved[waiting] = None

    def feed(self) -> None:
        """There may be room: let those go on who waited for it."""
        if self._starved:
            starved, self._starved = self._starved, {}
            for waiting in starved:
                waiting.progress()
        self.drained()

    def place(self, mark: Mark) -> None:
        """Put a mark where the queue of messages ends now, wherever it was."""
        self._marks.pop(mark, None)
        mark.bytes = self.sent_bytes + self.outbox.queued_bytes
        mark.chunks = self.outbox.end_of(Lane.MESSAGES)
        mark.moved_at = None
        self._marks[mark] = None
        self._pass_marks()

    def forget(self, mark: Mark) -> None:
        """Nobody asks for it any more."""
        self._marks.pop(mark, None)

    def _pass_marks(self) -> None:
        # In the order in which they were placed, which is the one in which they are passed.
        while self._marks:
            mark = next(iter(self._marks))
            if self.sent_bytes < mark.bytes or not self.outbox.has_taken(Lane.MESSAGES, mark.chunks):
                return
            mark.moved_at = self.moved_at
            del self._marks[mark]

    # Frames

    def put(self, lane: Lane, frame: bytes, fds: SharedFds | None = None) -> None:
        """Queue whole frames; with ``fds``, takes a hold of its own on them. On a broken link they are of no use."""
        if self.is_broken:
            return
        if fds is not None:
            fds.hold()
            self.fds_sent += len(fds.fds)
        self.outbox.put(lane, frame, fds)

    def flush(self) -> None:
        """Send what is queued as far as the socket takes it; the writer sends the rest."""
        if self._is_writing or self.is_broken or not self.outbox.queued_bytes:
            return
        blocked = self._send_batches()
        if self._marks:
            self._pass_marks()
        if self.outbox.queued_bytes and not self.is_broken:
            self._is_writing = True
            self._nursery.start_soon(self._write, blocked)
        self.feed()

    @property
    def has_flushed(self) -> bool:
        """Whether everything queued has left, or can leave no more."""
        return self.is_broken or not self.outbox.queued_bytes

    async def flushed(self) -> None:
        """Wait until it has."""
        while not self.has_flushed:
            await self._moved.park()

    async def last_word(self, error: SockbusError) -> None:
        """Send this instead of all that is queued, as far as the peer listens, and let it be read before the end."""
        self.outbox.drop_lanes()
        self.put(Lane.CONTROL, control(Kind.ERROR, {"code": error.code, "text": str(error)[:ERROR_CHARACTERS]}))
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LINGER):
            try:
                self.flush()
                await self.flushed()
                # With unread data in its queue a closed TCP socket resets the connection, and the peer loses the frame.
                self._transport.sock.shutdown(socket.SHUT_WR)
                for _ in range(LAST_READS):
                    await trio.lowlevel.wait_readable(self._transport.sock)
                    came = self._transport.receive()
                    if came is not None:
                        close_fds(came[1])
                        if not came[0]:
                            return
            except (OSError, SockbusError):
                # The peer is gone, or goes on as before: it has had its chance.
                return

    def close(self) -> None:
        """Send nothing more, and let go of what is queued."""
        self.is_broken = True
        self._starved.clear()
        self._marks.clear()
        self.outbox.close()
        self._moved.unpark_all()

    def _send_batches(self) -> Blocked | None:
        outbox = self.outbox
        for _ in range(FLUSH_SENDS):
            batch = outbox.batch()
            if batch is None:
                break
            self._hub.counters.sends += 1
            try:
                sent = self._transport.send(batch.buffers, batch.fds.fds if batch.fds is not None else ())
            except OSError as error:
                self.close()
                if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                    self._broke(LimitExceeded(f"sending to this peer failed: {error.strerror}"))
                break
            if isinstance(sent, Blocked):
                return sent
            self._hub.counters.bytes_out += sent
            self.sent_bytes += sent
            outbox.sent(sent)
        return None

    async def _write(self, blocked: Blocked | None) -> None:
        try:
            while self.outbox.queued_bytes and not self.is_broken:
                if blocked is Blocked.LATER:
                    await trio.sleep(LATER)
                else:
                    await trio.lowlevel.wait_writable(self._transport.sock)
                self._hub.counters.turns += 1
                before = self.sent_bytes
                blocked = self._send_batches()
                if self.sent_bytes > before:
                    self.moved_at = self._hub.now()
                    self._pass_marks()
                self._moved.unpark_all()
                self.feed()
                self._hub.settle()
        except trio.ClosedResourceError:
            # The link was closed meanwhile.
            return
        except Exception:  # a fault of the broker's own must cost this peer alone, and be seen
            log.exception("writing ran into a fault of the broker's")
            self._broke(ProtocolError("the broker met a fault of its own; see its log"))
        finally:
            self._is_writing = False
            self._moved.unpark_all()
