"""A mailbox that drops what its application does not take in time.

The same policy as at the broker, with the same capacity, on what has come: its credit is given back on arrival, once
for each receive, so that nothing old waits where nobody can replace it. What is dropped has its fds closed and is
counted, for the message behind it and in ``lost``. What was taken and put back is never dropped, nor are kept values.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import final

from ..errors import SubscriptionStalled
from ..fd import close_fds
from ..message import Message
from .mailbox import FD_CAPACITY, Mailbox
from .overflow import Overflow

__all__ = ["LossyMailbox", "mailbox_for"]


def mailbox_for(
    overflow: Overflow,
    pattern: str,
    group: str | None,
    capacity: int,
    capacity_bytes: int,
    stall: float | None,
    *,
    strip: bool,
) -> Mailbox:
    """The mailbox of a subscription with this policy."""
    kind = Mailbox if overflow is Overflow.BLOCK else LossyMailbox
    return kind(pattern, group, capacity, capacity_bytes, overflow, stall, strip=strip)


@final
class LossyMailbox(Mailbox):
    """Messages of a subscription whose policy is not "block". ``queue``: what was put back.

    ``unsubscribe`` is set by the session: it ends the subscription at the broker, whose answer tells the last losses.
    """

    __slots__ = ("_cuts", "_held", "_held_bytes", "_held_fds", "_kept", "_next", "_number", "unsubscribe")

    def __init__(
        self,
        pattern: str,
        group: str | None,
        capacity: int,
        capacity_bytes: int,
        overflow: Overflow,
        stall: float | None = None,
        *,
        strip: bool,
    ) -> None:
        super().__init__(pattern, group, capacity, capacity_bytes, overflow, stall, strip=strip)
        self.unsubscribe: Callable[[Mailbox], None]
        # In order; by topic where only the newest of each is kept, else by number.
        self._held: collections.OrderedDict[str | int, tuple[Message, int, int]] = collections.OrderedDict()
        self._held_bytes = self._held_fds = 0
        # Kept values, in order; those of a later connection stand behind what had come by an earlier one.
        self._kept: collections.deque[tuple[Message, int, int]] = collections.deque()
        # What came or was lost on the way has a number each; and the number behind the last that was taken.
        self._number = self._next = 0
        # Where in these the connection was lost, each until a message behind it was taken.
        self._cuts: collections.deque[int] = collections.deque()

    @property
    def ready(self) -> int:
        return len(self.queue) + len(self._kept) + len(self._held)

    def _outstanding(self) -> list[int]:
        return [
            len(self._kept),
            sum(cost for _, cost, _ in self._kept),
            sum(len(message.fds) for message, _, _ in self._kept),
        ]

    def note_lost(self, count: int) -> None:
        self.lost += count
        self._number += count

    def cut(self) -> None:
        if not self._cuts or self._cuts[-1] != self._number:
            self._cuts.append(self._number)

    def put(self, message: Message, cost: int) -> None:
        """A message came."""
        self._messages += 1
        self._bytes += cost
        self._fds += len(message.fds)
        number, self._number = self._number, self._number + 1
        held = self._held
        if self.overflow is Overflow.LATEST and message.topic in held:
            self._drop(message.topic)
        if self.error is not None or (held and self._is_over(cost, len(message.fds))):
            if self.error is None and self.overflow is Overflow.DISCONNECT:
                self.error = self._stalled()
                if not self.unsubscribed:
                    self.unsubscribed = True
                    self.unsubscribe(self)
            if self.error is not None or self.overflow is Overflow.DROP_NEWEST:
                self.lost += 1
                _throw_away(message)
                return
            while held and self._is_over(cost, len(message.fds)):
                self._drop(next(iter(held)))
        held[message.topic if self.overflow is Overflow.LATEST else number] = message, cost, number
        self._held_bytes += cost
        self._held_fds += len(message.fds)

    def put_retained(self, message: Message, cost: int) -> None:
        """A kept value came, in front of all others of its session: its credit comes back when it is taken."""
        message.retained = True
        number, self._number = self._number, self._number + 1
        self._kept.append((message, cost, number))

    def take(self) -> Message | None:
        if self.queue:
            return self.queue.popleft()[0]
        held = self._held
        if self._kept and (not held or self._kept[0][2] < next(iter(held.values()))[2]):
            message, cost, number = self._kept.popleft()
            self._count_kept(message, cost)
        elif held:
            _, (message, cost, number) = held.popitem(last=False)
            self._held_bytes -= cost
            self._held_fds -= len(message.fds)
        else:
            return None
        message.lost, self._next = number - self._next, number + 1
        while self._cuts and self._cuts[0] <= number:
            self._cuts.popleft()
            message.interrupted = True
        return message

    def _count_kept(self, message: Message, cost: int) -> None:
        self._messages += 1
        self._bytes += cost
        self._fds += len(message.fds)
        self._give_back_if_due(is_empty=not self._kept)

    def take_all(self) -> list[Message]:
        taken = []
        while (message := self.take()) is not None:
            taken.append(message)
        return taken

    def put_back(self, messages: list[Message]) -> None:
        self.queue.extendleft((message, 0) for message in reversed(messages))

    def give_back(self) -> None:
        if self.error is not None:
            # Of no use any more, and not owed.
            self._messages = self._bytes = self._fds = 0
        super().give_back()

    def close(self) -> None:
        super().close()
        while self._kept:
            self._kept.popleft()[0].close()
        while self._held:
            self._held.popitem()[1][0].close()

    def _is_over(self, cost: int, fds: int) -> bool:
        """Whether there is no room for one more such message."""
        return (
            len(self._held) >= self.capacity
            or self._held_bytes + cost > self.capacity_bytes
            or self._held_fds + fds > FD_CAPACITY
        )

    def _drop(self, key: str | int) -> None:
        message, cost, _ = self._held.pop(key)
        self._held_bytes -= cost
        self._held_fds -= len(message.fds)
        self.lost += 1
        _throw_away(message)

    def _stalled(self) -> SubscriptionStalled:
        return SubscriptionStalled(
            f"the subscription to {self.pattern!r} was ended: {len(self._held)} messages were not taken when more came "
            f"than its capacity of {self.capacity} messages and {self.capacity_bytes} bytes, and overflow is "
            f"'disconnect'; take messages faster, or subscribe with a larger capacity or another overflow"
        )


def _throw_away(message: Message) -> None:
    # Not by its own ``close``, which may raise the KeyboardInterrupt that waits: others are still being received.
    close_fds([fd.detach() for fd in message.fds])
