"""One subscription of one link: its credit, and what is put in front of its messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, final

from ..fd import SharedFds
from ..protocol.frame import DELIVER_COUNTS, FLAGS_OFFSET, Flag, Kind, encode
from ..protocol.inbox import fit
from ..protocol.overflow import Overflow
from .parcel import Delivery, Parcel
from .sink import Sink

if TYPE_CHECKING:
    from ..errors import SockbusError
    from .group import Group
    from .holdings import Holdings
    from .outlet import Starved

__all__ = ["Receiver", "Subscription"]

_RETAIN = bytes([Flag.RETAIN])
# What one front can say.
MAX_LOST = (1 << 32) - 1


class Receiver(Protocol):
    """The link that a subscription delivers to."""

    #: on this machine
    is_local: bool
    carries_fds: bool
    holdings: Holdings

    def end(self, error: SockbusError) -> None: ...
    def wait(self, subscription: Subscription) -> None: ...
    def end_subscription(self, subscription: Subscription, error: SockbusError) -> None: ...
    def has_room(self, fds: int) -> bool: ...
    def starve(self, waiting: Starved) -> None: ...
    def put_front(self, front: bytes, lost: int) -> None: ...
    def deliver(
        self, front: bytes, delivery: Delivery, frames: Sequence[bytes], fds: SharedFds | None, count: int
    ) -> None: ...


class Subscription(Sink):
    """One subscription of one link.

    ``strip``: deliver without the descriptors where the link carries none; else such messages are lost, and said to be.
    ``stall``: seconds without credit, while messages wait, that end it (``stalls``); infinite in a group, and where
    it drops.
    """

    __slots__ = (
        "_front", "bytes", "capacity_bytes", "capacity_fds", "capacity_messages", "ended", "fds", "group", "last_used",
        "link", "lost", "messages", "number", "overflow", "pattern", "returned", "stall", "strip", "untold", "warned",
    )  # fmt: skip

    def __init__(
        self,
        link: Receiver,
        number: int,
        pattern: str,
        credit: tuple[int, int, int],
        *,
        strip: bool,
        overflow: Overflow = Overflow.BLOCK,
        stall: float = math.inf,
    ) -> None:
        super().__init__()
        self.link = link
        self.number = number
        self.pattern = pattern
        self.strip = strip
        self.overflow = overflow
        self.stall = stall
        #: whether the broker has ended it, and its peer has not left it yet
        self.ended = False
        #: whether the log has named it for being without credit
        self.warned = False
        self.group: Group | None = None
        self.capacity_messages, self.capacity_bytes, self.capacity_fds = credit
        self.messages, self.bytes, self.fds = credit
        #: credit of any kind that came back so far
        self.returned = 0
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

    def spend(self, messages: int, size: int, fds: int) -> None:
        """So much of its credit is not there; the last message may go beyond it."""
        self.messages -= messages
        self.bytes -= size
        self.fds -= fds

    def give_back(self, messages: int, size: int, fds: int) -> bool:
        """Credit came back; False when it is more than was taken."""
        self.messages += messages
        self.bytes += size
        self.fds += fds
        self.returned += messages + size + fds
        return (
            self.messages <= self.capacity_messages
            and self.bytes <= self.capacity_bytes
            and self.fds <= self.capacity_fds
        )

    def front(self, count: int, lost: int, *, retained: bool = False) -> bytes:
        """The frame that says whose the next ``count`` publishes are, and whether they are kept ones."""
        front = self._front
        if retained:
            front = front[:FLAGS_OFFSET] + _RETAIN + front[FLAGS_OFFSET + 1 :]
        return front + DELIVER_COUNTS.pack(0x92, 0xCE, count, 0xCE, lost)

    def carries(self, delivery: Delivery) -> bool:
        """Whether a message with descriptors can be delivered here, with or without them."""
        return delivery.nfds >= 0 and (self.link.carries_fds or self.strip)

    def can_start(self, delivery: Delivery) -> bool:
        """Whether there is credit for one of the messages; room on the link is another question."""
        return self.messages > 0 and self.bytes > 0 and (self.fds > 0 or not self.sent_fds(delivery))

    def sent_fds(self, delivery: Delivery) -> int:
        """Descriptors of each message that go with it here."""
        return delivery.nfds if self.link.carries_fds else 0

    def take(self, delivery: Delivery, at: int, left: int, most: int) -> tuple[int, int]:
        """Deliver up to ``most`` of the ``left`` messages from ``at`` on; ``can_start`` was true.

        How many those were, and where the next one starts.
        """
        nfds = self.sent_fds(delivery)
        frames = delivery.frames
        taken, after, cost = left, 0, delivery.cost
        if delivery.count > 1:
            data = frames[0]
            after = len(data)
            cost = after - at
            if most < left or left > self.messages or cost > self.bytes:
                taken, after = fit(data, at, after, min(most, self.messages), self.bytes)
                cost = after - at
            frames = (data[at:after],)
        self.spend(taken, cost, nfds)
        if self.untold:
            self.tell_lost()
        front = self.front(taken, 0, retained=delivery.retained)
        self.link.deliver(front, delivery, frames, delivery.fds if nfds else None, taken)
        return taken, after

    def lose(self, messages: int) -> None:
        """Messages cannot be delivered here: the subscriber is told once there is room, with a message or not."""
        self.lost += messages
        self.tell_soon(messages)

    def tell_soon(self, lost: int) -> None:
        """The subscriber is to hear of losses: in one front, however many, for one that reads nothing."""
        self.untold += lost
        if self.untold == lost:
            _Notice(self).progress()

    def tell_lost(self) -> None:
        """A front of its own for what was lost; several where the number does not fit into one."""
        while lost := min(self.untold, MAX_LOST):
            self.untold -= lost
            self.link.put_front(self.front(0, lost), lost)

    def give_up(self) -> int:
        """It ends before it is left, and what waits is lost: how many messages the subscriber has not heard of."""
        self.ended = True
        waiting = self.waiting_messages
        if self.group is not None and len(self.group.members) == 1:
            # With its last member a group ends.
            waiting += self.group.waiting_messages
        self.lost += waiting
        return self.untold + waiting

    def _blocked(self) -> None:
        self.link.wait(self)

    def _can_carry(self, parcel: Parcel) -> bool:
        return self.carries(parcel)

    def _refuse(self, parcel: Parcel) -> None:
        self.lose(parcel.count)
        parcel.without_fds()

    def _step(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        if not self.can_start(parcel):
            return 0, at
        if not self.link.has_room(self.sent_fds(parcel)):
            self.link.starve(self)
            return 0, at
        return self.take(parcel, at, left, left)


@final
class _Notice:
    """Losses that a subscriber is to be told of when there is room."""

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
