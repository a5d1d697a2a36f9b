"""Publishers and links for tests of sinks: they only write down what they are given."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Any

from sockbus.broker.config import Limits
from sockbus.broker.holdings import Holdings
from sockbus.broker.hub import Hub
from sockbus.broker.outlet import Starved
from sockbus.broker.parcel import Delivery, Parcel, Tally
from sockbus.broker.subscription import Subscription
from sockbus.errors import SockbusError
from sockbus.fd import SharedFds
from sockbus.protocol.frame import PREFIX_BYTES, TOPIC_LENGTH_OFFSET, Kind, encode

__all__ = ["Files", "Publisher", "Receiver"]


class Publisher:
    """Where parcels come from; ``done`` are those that have left every sink, in that order, and ``told`` the receipts.

    ``kept`` counts what of it is still held.
    """

    def __init__(self) -> None:
        self.done: list[Parcel] = []
        self.told: list[Tally] = []
        self.kept = 0
        self._next = itertools.count()

    def parcel_done(self, parcel: Parcel) -> None:
        self.done.append(parcel)

    def receipt(self, tally: Tally) -> None:
        self.told.append(tally)

    @property
    def presence(self) -> Any:
        return self

    def keep(self) -> None:
        self.kept += 1

    def let_go(self) -> None:
        self.kept -= 1

    def run(self, count: int, size: int = 100, topics: Sequence[str] = ("",)) -> Parcel:
        """``count`` plain messages in one slice, each with a number of its own, their topics in turn."""
        frames = [self._frame(size, topics[index % len(topics)]) for index in range(count)]
        return Parcel(self, (b"".join(frames),), count, sum(map(len, frames)))

    def message(
        self, size: int = 100, fds: int = 0, tally: Tally | None = None, pieces: int = 0, topic: str = ""
    ) -> Parcel:
        """One message, with descriptors that are none, and in pieces."""
        shared = Files(tuple(range(fds))) if fds else None
        frames = [self._frame(size, topic), *[encode(Kind.PIECE, payload=b"x") for _ in range(pieces)]]
        return Parcel(self, frames, 1, size + pieces, shared, tally)

    def _frame(self, size: int, topic: str) -> bytes:
        payload = struct.pack(">I", next(self._next)).ljust(size - PREFIX_BYTES - len(topic), b".")
        return encode(Kind.PUBLISH, topic=topic.encode(), payload=payload)


class Files(SharedFds):
    """Numbers that are nobody's descriptors."""

    def __init__(self, fds: tuple[int, ...]) -> None:
        super().__init__(fds)
        self.holders = 1

    def hold(self) -> None:
        self.holders += 1

    def release(self) -> None:
        self.holders -= 1


class Receiver:
    """A link that has room for ``room`` deliveries; ``got`` are the numbers of the messages that it was given."""

    def __init__(self, *, carries_fds: bool = True, queue_bytes: int = 1 << 40, link_fds: int = 1 << 20) -> None:
        self.is_local = True
        self.carries_fds = carries_fds
        self.room = 1 << 30
        self.got: list[int] = []
        self.fds: list[int] = []
        self.fronts: list[tuple[int, int]] = []
        self.starved: dict[Starved, None] = {}
        self.waits = 0
        self.ends: list[str] = []
        self.hub = Hub(Limits(link_queue_bytes=queue_bytes, link_fds=link_fds))
        self.holdings = Holdings(self.hub)

    def has_room(self, fds: int) -> bool:
        return self.room > 0

    def wait(self, subscription: Subscription) -> None:
        self.waits += 1

    def end_subscription(self, subscription: Subscription, error: SockbusError) -> None:
        subscription.untold = subscription.give_up()
        subscription.close()
        subscription.tell_lost()
        self.ends.append(str(error))

    def end(self, error: SockbusError) -> None:
        self.ends.append(str(error))

    def starve(self, waiting: Starved) -> None:
        self.starved[waiting] = None

    def put_front(self, front: bytes, lost: int) -> None:
        self._note(front)

    @property
    def story(self) -> list[tuple[int, int]]:
        """Of each message its number, and how many were lost before it; at the end, what was lost after the last."""
        numbers, lost, story = iter(self.got), 0, []
        for count, more in self.fronts:
            lost += more
            for _ in range(count):
                story.append((next(numbers), lost))
                lost = 0
        return [*story, (-1, lost)]

    def deliver(
        self, front: bytes, delivery: Delivery, frames: Sequence[bytes], fds: SharedFds | None, count: int
    ) -> None:
        self.room -= 1
        self._note(front)
        assert self.fronts[-1][0] == count
        data, at = frames[0], 0
        while at < len(data):
            (length,) = struct.unpack_from(">I", data, at + 1)
            self.got.append(struct.unpack_from(">I", data, at + PREFIX_BYTES + data[at + TOPIC_LENGTH_OFFSET])[0])
            at += length + 6
        self.fds.append(len(fds.fds) if fds is not None else 0)

    def feed(self, room: int = 1 << 30) -> None:
        """There is room again."""
        self.room = room
        starved, self.starved = self.starved, {}
        for waiting in starved:
            waiting.progress()

    def _note(self, front: bytes) -> None:
        count, lost = struct.unpack_from(">xIxI", front, PREFIX_BYTES + 1)
        self.fronts.append((count, lost))
