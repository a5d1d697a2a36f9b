"""Where parcels go: subscriptions, and groups of them, with their credit and what waits for it.

A sink takes a parcel at once where there is credit and nothing waits before it, else the parcel waits in order; what
waits is charged to its publisher, never to the sink. ``progress`` is called when credit or room came back. Nothing
here is ever dropped but by the end of the sink.
"""

from __future__ import annotations

import collections
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, final

from ..fd import SharedFds
from ..protocol.frame import DELIVER_COUNTS, Kind, encode
from ..protocol.inbox import fit
from .parcel import Parcel

if TYPE_CHECKING:
    from .outlet import Starved

__all__ = ["Group", "Sink", "Subscription"]


class Receiver(Protocol):
    """The link that a subscription delivers to."""

    carries_fds: bool

    def has_room(self, fds: int) -> bool: ...
    def starve(self, waiting: Starved) -> None: ...
    def put_front(self, front: bytes, lost: int) -> None: ...
    def deliver(
        self, front: bytes, parcel: Parcel, frames: Sequence[bytes], fds: SharedFds | None, count: int
    ) -> None: ...


class Sink(ABC):
    """One match of a plan. ``waiting``: parcels in order; the head may have been taken in part."""

    __slots__ = ("_at", "_left", "waiting")

    def __init__(self) -> None:
        self.waiting: collections.deque[Parcel] = collections.deque()
        self._at = 0  # where in the head's slice the next message starts
        self._left = 0  # messages left in the head

    def offer(self, parcel: Parcel) -> None:
        """Take a parcel, or keep it waiting."""
        parcel.pending += 1
        self.waiting.append(parcel)
        if len(self.waiting) == 1:
            self._at, self._left = 0, parcel.count
            self.progress()

    def progress(self) -> None:
        """Take of what waits as much as credit and room allow."""
        waiting = self.waiting
        while waiting:
            parcel = waiting[0]
            if parcel.nfds and not self._can_carry(parcel):
                self._head_done()
                self._refuse(parcel)
                continue
            taken, self._at = self._step(parcel, self._at, self._left)
            if not taken:
                return
            self._left -= taken
            if not self._left:
                self._head_done()
                parcel.delivered()

    def close(self) -> None:
        """The sink has ended: what waits is dropped, and its publishers are told."""
        while self.waiting:
            parcel = self.waiting[0]
            self._head_done()
            parcel.dropped()

    def _head_done(self) -> None:
        self.waiting.popleft()
        self._at = 0
        if self.waiting:
            self._left = self.waiting[0].count

    @abstractmethod
    def _can_carry(self, parcel: Parcel) -> bool: ...

    @abstractmethod
    def _refuse(self, parcel: Parcel) -> None: ...

    @abstractmethod
    def _step(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        """Take some messages of a parcel, from ``at`` on; how many, and where the next one starts."""


@final
class Subscription(Sink):
    """One subscription of one link.

    ``strip``: deliver without the descriptors where the link carries none; else such messages are lost, and said to be.
    """

    __slots__ = (
        "_front", "bytes", "capacity_bytes", "capacity_fds", "capacity_messages", "fds", "group", "last_used", "link",
        "lost", "messages", "number", "pattern", "strip", "untold",
    )  # fmt: skip

    def __init__(self, link: Receiver, number: int, pattern: str, credit: tuple[int, int, int], *, strip: bool) -> None:
        super().__init__()
        self.link = link
        self.number = number
        self.pattern = pattern
        self.strip = strip
        self.group: Group | None = None
        self.capacity_messages, self.capacity_bytes, self.capacity_fds = credit
        self.messages, self.bytes, self.fds = credit
        #: messages that could not be delivered here, so far
        self.lost = 0
        #: of these, what the subscriber was not told of yet
        self.untold = 0
        #: when its group last gave it something
        self.last_used = 0
        self._front = encode(Kind.DELIVER, correlation=number, payload=bytes(DELIVER_COUNTS.size))[
            : -DELIVER_COUNTS.size
        ]

    @property
    def outstanding(self) -> int:
        """Messages delivered whose credit has not come back."""
        return self.capacity_messages - self.messages

    def give_back(self, messages: int, size: int, fds: int) -> bool:
        """Credit came back; False when it is more than was taken."""
        self.messages += messages
        self.bytes += size
        self.fds += fds
        return (
            self.messages <= self.capacity_messages
            and self.bytes <= self.capacity_bytes
            and self.fds <= self.capacity_fds
        )

    def front(self, count: int, lost: int) -> bytes:
        """The frame that says whose the next ``count`` publishes are."""
        return self._front + DELIVER_COUNTS.pack(0x92, 0xCE, count, 0xCE, lost)

    def carries(self, parcel: Parcel) -> bool:
        """Whether a message with descriptors can be delivered here, with or without them."""
        return self.link.carries_fds or self.strip

    def can_start(self, parcel: Parcel) -> bool:
        """Whether there is credit for one message of the parcel; room on the link is another question."""
        return self.messages > 0 and self.bytes > 0 and (self.fds > 0 or not self._sent_fds(parcel))

    def _sent_fds(self, parcel: Parcel) -> int:
        return parcel.nfds if self.link.carries_fds else 0

    def take(self, parcel: Parcel, at: int, left: int, most: int) -> tuple[int, int]:
        """Deliver up to ``most`` of the ``left`` messages of a parcel from ``at`` on; ``can_start`` was true."""
        nfds = self._sent_fds(parcel)
        frames = parcel.frames
        taken, after, cost = left, 0, parcel.cost
        if parcel.count > 1:
            data = frames[0]
            after = len(data)
            cost = after - at
            if most < left or left > self.messages or cost > self.bytes:
                taken, after = fit(data, at, after, min(most, self.messages), self.bytes)
                cost = after - at
            frames = (data[at:after],)
        self.messages -= taken
        self.bytes -= cost
        self.fds -= nfds
        if self.untold:
            self.tell_lost()
        self.link.deliver(self.front(taken, 0), parcel, frames, parcel.fds if nfds else None, taken)
        return taken, after

    def lose(self) -> None:
        """A message cannot be delivered here: the subscriber is told once there is room, with a message or not."""
        self.lost += 1
        self.untold += 1
        if self.untold == 1:
            _Notice(self).progress()

    def tell_lost(self) -> None:
        """A front of its own for what was lost."""
        lost, self.untold = self.untold, 0
        if lost:
            self.link.put_front(self.front(0, lost), lost)

    def _can_carry(self, parcel: Parcel) -> bool:
        return self.carries(parcel)

    def _refuse(self, parcel: Parcel) -> None:
        self.lose()
        parcel.without_fds()

    def _step(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        if not self.can_start(parcel):
            return 0, at
        if not self.link.has_room(self._sent_fds(parcel)):
            self.link.starve(self)
            return 0, at
        return self.take(parcel, at, left, left)


@final
class _Notice:
    """Losses that a subscriber is to be told of: in one front, however many, for one that reads nothing."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def progress(self) -> None:
        """Tell it, if there is room, and somebody else has not."""
        link = self._subscription.link
        if link.has_room(0):
            self._subscription.tell_lost()
        else:
            link.starve(self)


@final
class Group(Sink):
    """Subscriptions of one name and pattern that share: each message goes to one of them."""

    __slots__ = ("_uses", "members", "name", "pattern")

    def __init__(self, name: str, pattern: str) -> None:
        super().__init__()
        self.name = name
        self.pattern = pattern
        self.members: list[Subscription] = []
        self._uses = 0

    def _can_carry(self, parcel: Parcel) -> bool:
        return any(member.carries(parcel) for member in self.members)

    def _refuse(self, parcel: Parcel) -> None:
        min(self.members, key=_load).lose()
        parcel.without_fds()

    def _step(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        free: list[Subscription] = []
        for member in self.members:
            if not member.can_start(parcel) or (parcel.nfds and not member.carries(parcel)):
                continue
            if member.link.has_room(member._sent_fds(parcel)):
                free.append(member)
            else:
                member.link.starve(self)
        if not free:
            return 0, at
        chosen = min(free, key=_load)
        self._uses += 1
        chosen.last_used = self._uses
        # One at a time where there is a choice, so that a run is shared out.
        return chosen.take(parcel, at, left, left if len(self.members) == 1 else 1)


def _load(member: Subscription) -> tuple[int, int]:
    return member.outstanding, member.last_used
