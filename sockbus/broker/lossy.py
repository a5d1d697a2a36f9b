"""Subscriptions that drop what they cannot take, and make no publisher wait.

A ``Lossy`` subscription has a queue of its own, bounded in messages, bytes and descriptors by its capacity, and
together with the others of its link by that link's limits. What its policy drops is counted to the message: each that
matches has a number, and what is missing between the numbers of two messages that are delivered was lost between them.
"""

from __future__ import annotations

import collections
from typing import final

from ..errors import SubscriptionStalled
from ..protocol.inbox import fit, topics
from ..protocol.overflow import Overflow
from .held import Held
from .parcel import Parcel, Tally
from .subscription import Receiver, Subscription

__all__ = ["Lossy"]

_ANY = 1 << 62


@final
class Lossy(Subscription):
    """A subscription whose policy is not "block"."""

    __slots__ = ("_arrived", "_bytes", "_charged", "_fds", "_messages", "_next", "_queue", "_with_fds")

    def __init__(
        self,
        link: Receiver,
        number: int,
        pattern: str,
        credit: tuple[int, int, int],
        *,
        strip: bool,
        overflow: Overflow,
    ) -> None:
        super().__init__(link, number, pattern, credit, strip=strip, overflow=overflow)
        # In order; by topic where only the newest of each is kept, else by number.
        self._queue: collections.OrderedDict[bytes | int, Held] = collections.OrderedDict()
        self._messages = self._bytes = self._fds = 0
        # Of the link's bytes; and what has descriptors, with its key.
        self._charged = 0
        self._with_fds: collections.OrderedDict[Held, bytes | int] = collections.OrderedDict()
        # The numbers of the next message to come, and of the next one of which the subscriber is to hear.
        self._arrived = self._next = 0

    @property
    def waiting_messages(self) -> int:
        return self._messages + len(self.waiting)

    def offer(self, parcel: Parcel) -> None:
        tally = parcel.tally
        if self.ended:
            # In this turn, and this was on its way.
            if tally is not None:
                tally.add(dropped=1)
            return
        self._arrived += parcel.count
        if parcel.nfds and not self.carries(parcel):
            self.lost += 1
            self._tell_if_drained()
            if tally is not None:
                tally.add(without_fds=1)
            return
        taken = at = 0
        if not self._queue and not self.waiting:
            taken, at = self._step(parcel, 0, parcel.count)
            self._next += taken
        if taken < parcel.count:
            self._keep(parcel, at, parcel.count - taken)
            self._tell_if_drained()
        elif tally is not None:
            tally.add(delivered=1)

    def progress(self) -> None:
        # What it began with, which no policy drops.
        super().progress()
        if self.waiting:
            return
        queue = self._queue
        while queue:
            key, held = next(iter(queue.items()))
            if not self.can_start(held):
                return
            if not self.link.has_room(self.sent_fds(held)):
                self.link.starve(self)
                return
            if held.skipped:
                self._tidy(held)
            self.untold += held.end - held.left - self._next
            taken, after = self.take(held, held.at, held.left, held.left)
            self._next = held.end - held.left + taken
            if taken < held.left:
                held.left -= taken
                held.at = after
                self._messages -= taken
                self.link.holdings.note_untidy(self)
                continue
            del queue[key]
            if held.tally is not None:
                held.tally.add(delivered=1)
            self._release(held)
        self._tell_if_drained()

    def tidy(self) -> None:
        """Let go of what is kept of messages that are not here any more."""
        held = self._oldest()
        if held is not None and held.is_untidy:
            self._tidy(held)

    def close(self) -> None:
        super().close()
        while self._queue:
            _, held = self._queue.popitem(last=False)
            if held.tally is not None:
                held.tally.add(dropped=1)
            self._release(held)

    def give_up(self) -> int:
        self.ended = True
        self.lost += self.waiting_messages
        untold, self._next = self._arrived - self._next + len(self.waiting), self._arrived
        return self.untold + untold

    # The policies: what becomes of the ``left`` last messages of a parcel, from ``at`` on

    def _keep(self, parcel: Parcel, at: int, left: int) -> None:
        match self.overflow:
            case Overflow.DROP_OLDEST:
                self._keep_newest(parcel, at, left)
            case Overflow.DROP_NEWEST:
                self._keep_oldest(parcel, at, left)
            case Overflow.LATEST:
                self._keep_latest(parcel, at, left)
            case _:
                self._keep_all(parcel, at, left)

    def _keep_oldest(self, parcel: Parcel, at: int, left: int) -> None:
        fits, after = self._fitting(parcel, at, left)
        if fits:
            number = self._arrived - left + fits
            self._put(number, self._held(parcel, at, after, fits, number))
        if fits < left:
            self._lose(parcel.tally, left - fits)

    def _keep_all(self, parcel: Parcel, at: int, left: int) -> None:
        fits, after = self._fitting(parcel, at, left)
        if fits == left:
            self._put(self._arrived, self._held(parcel, at, after, left, self._arrived))
            return
        waiting = self._messages + left
        self._lose(parcel.tally, left)
        self.link.end_subscription(
            self,
            SubscriptionStalled(
                f"the subscription to {self.pattern!r} was ended: with {self.outstanding} messages outstanding and "
                f"{waiting} more it is above its capacity of {self.capacity_messages} messages and "
                f"{self.capacity_bytes} bytes, and overflow is 'disconnect'; take messages faster, or subscribe with a "
                f"larger capacity or another overflow"
            ),
        )

    def _keep_newest(self, parcel: Parcel, at: int, left: int) -> None:
        if not self._link_can_hold(self.sent_fds(parcel)):
            self._lose(parcel.tally, left)
            return
        self._make_link_hold(self.sent_fds(parcel))
        self._put(self._arrived, self._held(parcel, at, None, left, self._arrived))
        while self._messages > 1:
            held = self._oldest()
            assert held is not None
            over, over_bytes = self._messages - self.capacity_messages, self._bytes - self.capacity_bytes
            over_fds = self._fds > self.capacity_fds
            if not (over > 0 or over_bytes > 0 or over_fds):
                break
            if over_fds or held.messages <= over:
                self._drop_oldest()
            elif over > 0:
                self._skip(held, over)
            elif held.is_untidy:
                # What is gone of it may be all that is too much.
                self._tidy(held)
            elif held.messages == 1 or held.cost <= over_bytes:
                self._drop_oldest()
            else:
                most = held.left - 1 if len(self._queue) == 1 else held.left
                count, _ = fit(held.frames[0], 0, held.cost, most, over_bytes)
                if count < held.left:
                    self._skip(held, count)
                else:
                    self._drop_oldest()

    def _keep_latest(self, parcel: Parcel, at: int, left: int) -> None:
        if not self._link_can_hold(self.sent_fds(parcel)):
            self._lose(parcel.tally, left)
            return
        if parcel.count == 1:
            data = parcel.frames[0]
            topic = next(topics(data, 0, len(data)))[0]
            self._put_latest(topic, self._held(parcel, 0, None, 1, self._arrived))
            return
        newest = parcel.newest
        if left < parcel.count:
            newest = [each for each in newest if each[1] > parcel.count - left]
        # Of more topics than there is room for, the first would only be evicted by the others.
        newest = newest[-self.capacity_messages :]
        self.lost += left - len(newest)
        before = self._arrived - parcel.count
        for topic, place, frame in newest:
            self._put_latest(topic, Held(parcel, (frame,), 1, before + place, tally=None))

    def _put_latest(self, topic: bytes, held: Held) -> None:
        replaced = self._queue.pop(topic, None)
        if replaced is not None:
            self._drop(replaced)
        while self._queue and (
            self._messages >= self.capacity_messages
            or self._bytes + held.cost > self.capacity_bytes
            or self._fds + held.nfds > self.capacity_fds
        ):
            self._drop_oldest()
        self._make_link_hold(held.nfds)
        self._put(topic, held)

    # The queue

    def _held(self, parcel: Parcel, at: int, after: int | None, count: int, end: int) -> Held:
        if parcel.count == 1:
            return Held(parcel, parcel.frames, 1, end, nfds=self.sent_fds(parcel), tally=parcel.tally)
        # The slice itself where all of it is kept.
        return Held(parcel, (parcel.frames[0][at:after],), count, end, tally=None)

    def _fitting(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        """How many of the messages there is room for, and where they end; one where there is nothing else."""
        if not self.link.holdings.has_room(self.sent_fds(parcel)):
            return 0, at
        messages = self.capacity_messages - self._messages
        data = parcel.frames[0]
        size = parcel.cost if parcel.count == 1 else len(data) - at
        if self._bytes + size > self.capacity_bytes:
            self.tidy()
        room = self.capacity_bytes - self._bytes
        if parcel.count == 1:
            there_is = messages > 0 and size <= room and self._fds + self.sent_fds(parcel) <= self.capacity_fds
            return int(there_is or not self._queue), len(data)
        if left <= messages and size <= room:
            return left, len(data)
        if messages <= 0 or room <= 0:
            return 0, at
        fits, after = fit(data, at, len(data), messages, room)
        if after - at > room and (fits > 1 or self._queue):
            # The last one may start, but does not fit.
            fits, after = fit(data, at, len(data), fits - 1, _ANY)
        return fits, after

    def _link_can_hold(self, fds: int) -> bool:
        """Whether the link may hold one more message, or might if this subscription dropped what it keeps."""
        holdings = self.link.holdings
        return holdings.has_room(fds) or holdings.would_have_room(fds, self._charged, self._fds)

    def _make_link_hold(self, fds: int) -> None:
        """Drop the oldest, as far as it takes, where the link can hold one more: for descriptors what has some."""
        holdings = self.link.holdings
        while self._queue and not holdings.has_room(0):
            self._drop_oldest()
        while self._with_fds and not holdings.has_room(fds):
            held, key = next(iter(self._with_fds.items()))
            del self._queue[key]
            self._drop(held)

    def _oldest(self) -> Held | None:
        return next(iter(self._queue.values()), None)

    def _put(self, key: bytes | int, held: Held) -> None:
        self._queue[key] = held
        self._messages += held.messages
        self._bytes += held.cost
        self._fds += held.nfds
        if held.nfds:
            self._with_fds[held] = key
        self._charge(held.cost + held.overhead, held.nfds)

    def _release(self, held: Held) -> None:
        self._messages -= held.messages
        self._bytes -= held.cost
        self._fds -= held.nfds
        if held.nfds:
            del self._with_fds[held]
        self._charge(-held.cost - held.overhead, -held.nfds)
        held.release()

    def _charge(self, size: int, fds: int) -> None:
        self._charged += size
        self.link.holdings.add(size, fds)

    def _tidy(self, held: Held) -> None:
        before = held.cost
        held.tidy()
        self._bytes -= before - held.cost
        self._charge(held.cost - before, 0)

    def _skip(self, held: Held, messages: int) -> None:
        held.skipped += messages
        self._messages -= messages
        self.lost += messages
        self.link.holdings.note_untidy(self)

    def _drop_oldest(self) -> None:
        self._drop(self._queue.popitem(last=False)[1])

    def _drop(self, held: Held) -> None:
        self._lose(held.tally, held.messages)
        self._release(held)

    def _lose(self, tally: Tally | None, messages: int) -> None:
        self.lost += messages
        if tally is not None:
            tally.add(dropped=1)

    def _tell_if_drained(self) -> None:
        """With nothing behind them the last losses are told by themselves."""
        if not self._queue and not self.waiting and self._arrived > self._next:
            lost, self._next = self._arrived - self._next, self._arrived
            self.tell_soon(lost)
