"""What a program has published and no connection has begun to write.

While a bus has no connection, and until the next one has room, its publishes wait here in order. ``salvage`` takes over
what a session that has ended had queued and not begun to write; what it had begun is never sent again, for nobody knows
how far it came.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING, final

from ..errors import SockbusError
from ..fd import SharedFds
from .frame import FLAGS_OFFSET, LENGTH, LENGTH_OFFSET, MAX_FRAME, PREFIX, PREFIX_BYTES, Flag, Kind, stamp
from .inbox import fit
from .mailbox import no_wake
from .outbox import Lane
from .sender import Outgoing

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Backlog"]

_ANSWERED = int(Flag.RECEIPT | Flag.RETAIN)


@final
class Backlog:
    """Publishes in order: small plain ones joined, others one by one. ``limit_bytes``: where no more are taken in."""

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0
        self._fds = 0
        self._limit_bytes = limit_bytes
        self._items: collections.deque[bytearray | Outgoing] = collections.deque()

    def __bool__(self) -> bool:
        return bool(self._items)

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(1 if isinstance(item, Outgoing) else sum(1 for _ in _frames(item)) for item in self._items)

    @property
    def unanswered(self) -> int:
        """How many of them ask for no answer."""
        return len(self) - sum(isinstance(item, Outgoing) and item.pending is not None for item in self._items)

    @property
    def has_room(self) -> bool:
        """Whether one more may be put: one may go beyond the limit."""
        return self.size_bytes < self._limit_bytes

    def has_room_for(self, outgoing: Outgoing, limit_fds: int) -> bool:
        """Whether this publish may be put: of those with fds one may go beyond ``limit_fds`` of all."""
        return self.has_room and (not outgoing.fds or self._fds < limit_fds)

    def put(self, outgoing: Outgoing) -> None:
        """Keep a publish; LimitExceeded when its fds cannot be duplicated."""
        outgoing.keep_fds()
        self._put(outgoing)

    def put_frames(self, frames: bytes | bytearray) -> None:
        """Keep small plain publishes."""
        self.size_bytes += len(frames)
        last = self._items[-1] if self._items else None
        if isinstance(last, bytearray) and len(last) + len(frames) <= MAX_FRAME:
            last += frames
        else:
            self._items.append(bytearray(frames))

    def _put(self, outgoing: Outgoing) -> None:
        if outgoing.kind is Kind.PUBLISH and not outgoing.correlation and len(outgoing.frames) == 1:
            self.put_frames(outgoing.frames[0])
            return
        self.size_bytes += outgoing.cost
        self._fds += len(outgoing.fds)
        self._items.append(outgoing)

    def feed(self, session: Session) -> None:
        """Queue with a session what it has room for."""
        window = session.sender.publishes
        while self._items:
            item = self._items[0]
            if isinstance(item, bytearray):
                room = window.granted_bytes - window.sent_bytes
                count, end = fit(item, 0, len(item), len(item), room) if room > 0 else (0, 0)
                if count:
                    session.outbox.put(Lane.MESSAGES, bytes(item[:end]))
                    window.sent_bytes += end
                    window.sent_messages += count
                    self.size_bytes -= end
                    del item[:end]
                if item:
                    return
            elif session.send(item):
                self.size_bytes -= item.cost
                self._fds -= len(item.fds)
            else:
                return
            self._items.popleft()

    def move_to(self, session: Session) -> None:
        """All that waits will leave by this session."""
        for item in self._items:
            if isinstance(item, bytearray):
                stamp(item, session.sender.number)
            else:
                session.sender.adopt(item)

    def salvage(self, session: Session) -> int:
        """Take over what an ended session has not begun to write; how many unanswered messages are in doubt."""
        earlier, self._items = self._items, collections.deque()
        self.size_bytes = self._fds = 0
        window = session.sender.publishes
        in_doubt = window.sent_messages - window.taken_messages
        for outgoing in _unwritten(session):
            if outgoing.correlation and outgoing.frames[0][FLAGS_OFFSET] & _ANSWERED:
                outgoing.pending = session.orders.take(outgoing.correlation)
            else:
                in_doubt -= 1
            self._put(outgoing)
        for item in earlier:
            if isinstance(item, bytearray):
                self.put_frames(item)
            else:
                self._put(item)
        return 0 if session.is_flushed else max(0, in_doubt)

    def forget(self) -> None:
        """Those who wait for answers are gone."""
        for item in self._items:
            if isinstance(item, Outgoing) and item.pending is not None:
                item.pending.wake = no_wake

    def fail(self, error: SockbusError) -> bool:
        """It will never leave; whether somebody who waited was told. (Of what is ``unanswered``, nobody was.)"""
        heard = False
        for item in self._items:
            if isinstance(item, Outgoing):
                item.drop()
                if item.pending is not None:
                    heard = heard or item.pending.wake is not no_wake
                    item.pending.fail(error)
        self._items.clear()
        self.size_bytes = self._fds = 0
        return heard


def _frames(data: bytes | bytearray | memoryview) -> Iterator[tuple[int, int]]:
    """Where each whole frame begins and ends."""
    at, end = 0, len(data)
    while at < end:
        after = at + LENGTH_OFFSET + LENGTH.unpack_from(data, at + 1)[0]
        yield at, after
        at = after


def _unwritten(session: Session) -> Iterator[Outgoing]:
    """The messages of which a session has not begun to write the first frame."""
    message: Outgoing | None = None
    for data, fds in session.outbox.unwritten():
        shared: SharedFds | None = fds
        for at, after in _frames(data):
            _, _, _, kind, _, _, _, _, number = PREFIX.unpack_from(data, at)
            if kind == Kind.PIECE:
                if message is not None and number == message.correlation:
                    message.frames.append(bytes(data[at:after]))
                    message.cost += after - at - PREFIX_BYTES
                # Else it is a call's, or of a message that was begun, and is in doubt.
            elif kind == Kind.PUBLISH:
                if message is not None:
                    yield message
                numbers = shared.fds if shared is not None else ()
                message = Outgoing(Kind.PUBLISH, [bytes(data[at:after])], numbers, session.sender, number, owned=shared)
                shared = None
        if shared is not None:
            # A call's, which ends with its session.
            shared.release()
    if message is not None:
        yield message
