"""Subscriptions that drop what they cannot take, and make no publisher wait.

A ``Lossy`` subscription has a queue of its own, bounded in messages, bytes and descriptors by its capacity, and
together with the others of its link by that link's limits. What its policy drops is counted to the message: each that
matches has a number, and what is missing between the numbers of two messages that are delivered was lost between them.
"""

from __future__ import annotations

from typing import final

from ..errors import SubscriptionStalled
from ..protocol.inbox import fit, topics
from ..protocol.overflow import Overflow
from .held import Held, Queue
from .parcel import Delivery, Parcel, Tally
from .subscription import Receiver, Subscription

__all__ = ["Lossy"]

_ANY = 1 << 62


@final
class Lossy(Subscription):
    """A subscription whose policy is not "block"."""

    __slots__ = ("_arrived", "_next", "_queue")

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
        self._queue = Queue(link.holdings)
        # The numbers of the next message to come, and of the next one of which the subscriber is to hear.
        self._arrived = self._next = 0

    @property
    def waiting_messages(self) -> int:
        return self._queue.messages + super().waiting_messages

    @property
    def head(self) -> Delivery | None:
        return super().head or self._queue.oldest

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
        if not self._queue.entries and not self.waiting:
            taken, at = self._step(parcel, 0, parcel.count)
            self._next += taken
            if taken < parcel.count:
                self._blocked()
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
        while queue.entries:
            key, held = next(iter(queue.entries.items()))
            if not self.can_start(held):
                self._blocked()
                return
            if not self.link.has_room(self.sent_fds(held)):
                self.link.starve(self)
                self._blocked()
                return
            if held.skipped:
                queue.tidy(held)
            self.untold += held.end - held.left - self._next
            taken, after = self.take(held, held.at, held.left, held.left)
            self._next = held.end - held.left + taken
            if taken < held.left:
                queue.taken(held, taken, after)
                self.link.holdings.note_untidy(self)
                continue
            del queue.entries[key]
            if held.tally is not None:
                held.tally.add(delivered=1)
            queue.release(held)
        self._tell_if_drained()

    def tidy(self) -> None:
        """Let go of what is kept of messages that are not here any more."""
        held = self._queue.oldest
        if held is not None and held.is_untidy:
            self._queue.tidy(held)

    def close(self) -> None:
        super().close()
        while self._queue.entries:
            _, held = self._queue.entries.popitem(last=False)
            if held.tally is not None:
                held.tally.add(dropped=1)
            self._queue.release(held)

    def give_up(self) -> int:
        self.ended = True
        self.lost += self.waiting_messages
        untold, self._next = self._arrived - self._next + super().waiting_messages, self._arrived
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
            self._queue.put(number, self._held(parcel, at, after, fits, number))
        if fits < left:
            self._lose(parcel.tally, left - fits)

    def _keep_all(self, parcel: Parcel, at: int, left: int) -> None:
        fits, after = self._fitting(parcel, at, left)
        if fits == left:
            self._queue.put(self._arrived, self._held(parcel, at, after, left, self._arrived))
            return
        waiting = self._queue.messages + left
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
        queue = self._queue
        if not queue.can_link_hold(self.sent_fds(parcel)):
            self._lose(parcel.tally, left)
            return
        self._make_link_hold(self.sent_fds(parcel))
        queue.put(self._arrived, self._held(parcel, at, None, left, self._arrived))
        while queue.messages > 1:
            held = queue.oldest
            assert held is not None
            over, over_bytes = queue.messages - self.capacity_messages, queue.bytes - self.capacity_bytes
            over_fds = queue.fds > self.capacity_fds
            if not (over > 0 or over_bytes > 0 or over_fds):
                break
            if over_fds or held.messages <= over:
                self._drop_oldest()
            elif over > 0:
                self._skip(held, over)
            elif held.is_untidy:
                # What is gone of it may be all that is too much.
                queue.tidy(held)
            elif held.messages == 1 or held.cost <= over_bytes:
                self._drop_oldest()
            else:
                most = held.left - 1 if len(queue.entries) == 1 else held.left
                count, _ = fit(held.frames[0], 0, held.cost, most, over_bytes)
                if count < held.left:
                    self._skip(held, count)
                else:
                    self._drop_oldest()

    def _keep_latest(self, parcel: Parcel, at: int, left: int) -> None:
        if not self._queue.can_link_hold(self.sent_fds(parcel)):
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
        queue = self._queue
        replaced = queue.entries.pop(topic, None)
        if replaced is not None:
            self._drop(replaced)
        while queue.entries and (
            queue.messages >= self.capacity_messages
            or queue.bytes + held.cost > self.capacity_bytes
            or queue.fds + held.nfds > self.capacity_fds
        ):
            self._drop_oldest()
        self._make_link_hold(held.nfds)
        queue.put(topic, held)

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
        queue = self._queue
        messages = self.capacity_messages - queue.messages
        data = parcel.frames[0]
        size = parcel.cost if parcel.count == 1 else len(data) - at
        if queue.bytes + size > self.capacity_bytes:
            self.tidy()
        room = self.capacity_bytes - queue.bytes
        if parcel.count == 1:
            there_is = messages > 0 and size <= room and queue.fds + self.sent_fds(parcel) <= self.capacity_fds
            return int(there_is or not queue.entries), len(data)
        if messages <= 0 or room <= 0 or queue.fds > self.capacity_fds:
            return 0, at
        if left <= messages and size <= room:
            return left, len(data)
        fits, after = fit(data, at, len(data), messages, room)
        if after - at > room and (fits > 1 or queue.entries):
            # The last one may start, but does not fit.
            fits, after = fit(data, at, len(data), fits - 1, _ANY)
        return fits, after

    def _make_link_hold(self, fds: int) -> None:
        """Drop the oldest, as far as it takes, where the link can hold one more: for descriptors what has some."""
        holdings = self.link.holdings
        while self._queue.entries and not holdings.has_room(0):
            self._drop_oldest()
        while not holdings.has_room(fds) and (held := self._queue.pop_with_fds()) is not None:
            self._drop(held)

    def _skip(self, held: Held, messages: int) -> None:
        self._queue.skip(held, messages)
        self.lost += messages
        self.link.holdings.note_untidy(self)

    def _drop_oldest(self) -> None:
        self._drop(self._queue.entries.popitem(last=False)[1])

    def _drop(self, held: Held) -> None:
        self._lose(held.tally, held.messages)
        self._queue.release(held)

    def _lose(self, tally: Tally | None, messages: int) -> None:
        self.lost += messages
        if tally is not None:
            tally.add(dropped=1)

    def _tell_if_drained(self) -> None:
        """With nothing behind them the last losses are told by themselves."""
        if not self._queue.entries and not self.waiting and self._arrived > self._next:
            lost, self._next = self._arrived - self._next, self._arrived
            self.tell_soon(lost)
