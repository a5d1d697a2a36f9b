"""What a client has received and its application has not taken: messages of one subscription, calls of one server.

A ``Mailbox`` counts what was taken and says when to give credit back: at half of any capacity, when the queue is empty,
or at the next ``tick`` of the session, which comes within a second. In a group a message counts as taken only when the
consumer comes back for the next one: the broker picks the member with the fewest outstanding, and a worker at work
is not free.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, final

from ..errors import SockbusError
from ..message import Message
from .overflow import Overflow

if TYPE_CHECKING:
    from .sender import Sender

__all__ = ["FD_CAPACITY", "Called", "Mailbox", "Service", "check_capacity", "no_wake"]

#: fds that a subscription may have outstanding (docs/wire.md, "Credit")
FD_CAPACITY = 64
MAX_CAPACITY = 1 << 40
MAX_GROUP_BYTES = 255


def no_wake() -> None:
    """Where nobody waits."""


def check_capacity(
    group: str | None, fds: str, capacity: int, capacity_bytes: int, overflow: str, stall: float | None
) -> None:
    """ValueError when a subscription's options are none that a broker takes."""
    if fds not in ("reject", "strip"):
        raise ValueError(f"fds={fds!r} is neither 'reject' nor 'strip'")
    for name, value in (("capacity", capacity), ("capacity_bytes", capacity_bytes)):
        if type(value) is not int or not 1 <= value <= MAX_CAPACITY:
            raise ValueError(f"{name}={value!r} is not a whole number from 1 to {MAX_CAPACITY}")
    if group is not None and not _is_group(group):
        raise ValueError(f"group={group!r:.80} is not a name of 1 to {MAX_GROUP_BYTES} bytes of UTF-8")
    if overflow not in tuple(Overflow):
        raise ValueError(f"overflow={overflow!r:.80} is none of {', '.join(map(repr, map(str, Overflow)))}")
    if group is not None and overflow != Overflow.BLOCK:
        raise ValueError(f"overflow={overflow!r} is for a subscription alone; a group waits for its members")
    if stall is not None and (type(stall) not in (int, float) or not stall > 0):
        raise ValueError(f"stall={stall!r:.80} is no number of seconds above 0, nor None")


def _is_group(name: object) -> bool:
    try:
        return isinstance(name, str) and 0 < len(name.encode()) <= MAX_GROUP_BYTES
    except UnicodeEncodeError:
        return False


class Mailbox:
    """Messages of one subscription, in order, and the credit that taking them gives back.

    It outlives its session: the next one goes on with it. ``wake`` is called when something came or the session ended;
    ``lost`` counts all losses so far, ``interrupted`` how often the connection was lost; ``credit`` is set by the
    session: it sends what is given back. ``error`` is why nothing more comes, while the bus goes on; ``over``: nothing
    new is taken any more, and ``drained``: nothing new comes.
    """

    __slots__ = (
        "_bytes", "_fds", "_half_bytes", "_half_fds", "_half_messages", "_handed", "_messages", "capacity",
        "capacity_bytes", "credit", "drained", "error", "group", "interrupted", "is_cut", "is_lossy", "lost",
        "lost_before", "number", "over", "overflow", "pattern", "queue", "stall", "strip", "unsubscribed", "wake",
    )  # fmt: skip

    def __init__(
        self,
        pattern: str,
        group: str | None,
        capacity: int,
        capacity_bytes: int,
        overflow: Overflow = Overflow.BLOCK,
        stall: float | None = None,
        *,
        strip: bool,
    ) -> None:
        self.number = 0
        self.overflow = overflow
        self.stall = stall
        self.pattern = pattern
        self.group = group
        self.strip = strip
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.queue: collections.deque[tuple[Message, int]] = collections.deque()
        self.wake: Callable[[], None] = no_wake
        self.credit: Callable[[Mailbox, int, int, int], None]
        self.is_lossy = overflow is not Overflow.BLOCK
        #: whether the broker was told already that this is over
        self.unsubscribed = False
        self.lost = 0
        #: lost since the last message that came
        self.lost_before = 0
        self.interrupted = 0
        #: the connection was lost since the last message that came
        self.is_cut = False
        self.over = self.drained = False
        self.error: SockbusError | None = None
        self._half_messages = (capacity + 1) // 2
        self._half_bytes = (capacity_bytes + 1) // 2
        self._half_fds = FD_CAPACITY // 2
        self._messages = self._bytes = self._fds = 0
        # By the first message of each: handed to a taker that has not come back.
        self._handed: dict[int, tuple[int, int, int]] = {}

    def begin(self) -> dict[str, object]:
        """The body of its SUBSCRIBE. From here on credit is counted anew: what has come before is outstanding still."""
        self._messages = self._bytes = self._fds = 0
        options: dict[str, object] = {
            "group": self.group,
            "credit": [self.capacity, self.capacity_bytes, FD_CAPACITY],
            "fds": "strip" if self.strip else "reject",
        }
        outstanding = self._outstanding()
        if outstanding[0]:
            options["outstanding"] = outstanding
        if self.is_lossy:
            options["overflow"] = str(self.overflow)
        if self.stall is not None:
            options["stall"] = self.stall
        return options

    def _outstanding(self) -> list[int]:
        """Messages, bytes and fds whose credit is given back when they are taken."""
        total = [
            len(self.queue),
            sum(cost for _, cost in self.queue),
            sum(len(message.fds) for message, _ in self.queue),
        ]
        for handed in self._handed.values():
            total = [sum(pair) for pair in zip(total, handed, strict=True)]
        return total

    @property
    def ready(self) -> int:
        """How many messages are there."""
        return len(self.queue)

    def note_lost(self, count: int) -> None:
        """Messages were lost before the next one."""
        self.lost += count
        self.lost_before += count

    def mark(self, message: Message) -> None:
        """The first message that comes after something that it tells of."""
        message.lost, self.lost_before = self.lost_before, 0
        if self.is_cut:
            self.is_cut = False
            message.interrupted = True

    def cut(self) -> None:
        """The session has ended."""
        self.is_cut = True

    def take(self) -> Message | None:
        """The next message, or None when none is there."""
        if self._handed:
            self._count_handed()
        if not self.queue:
            return None
        message, cost = self.queue.popleft()
        if self.group is not None:
            self._handed[id(message)] = (1, cost, len(message.fds))
        elif message.fds:
            self._count(1, cost, len(message.fds))
        else:
            # _count, written out: this is the path of every message.
            self._messages += 1
            self._bytes += cost
            if not self.queue or self._messages >= self._half_messages or self._bytes >= self._half_bytes:
                self.give_back()
        return message

    def take_all(self) -> list[Message]:
        """All messages that are there."""
        if self._handed:
            self._count_handed()
        taken = [message for message, _ in self.queue]
        if not taken:
            return taken
        count = (len(taken), sum(cost for _, cost in self.queue), sum(len(message.fds) for message in taken))
        self.queue.clear()
        if self.group is None:
            self._count(*count)
        else:
            self._handed[id(taken[0])] = count
        return taken

    @property
    def owes(self) -> bool:
        """Whether the credit of something that was taken is still to be given back."""
        return self._messages > 0

    def put_back(self, messages: list[Message]) -> None:
        """What was taken last was not handed over after all, and is the next to be taken. Its credit may be back."""
        cost = 0
        if handed := self._handed.pop(id(messages[0]), None):
            cost = handed[1]
        else:
            # It was counted: in no group at once, in one when another taker came meanwhile.
            self._messages -= len(messages)
            self._fds -= sum(len(message.fds) for message in messages)
        self.queue.extendleft((message, 0) for message in reversed(messages[1:]))
        self.queue.appendleft((messages[0], cost))

    def _count_handed(self) -> None:
        handed, self._handed = self._handed, {}
        for count in handed.values():
            self._count(*count)

    def _count(self, messages: int, size: int, fds: int) -> None:
        self._messages += messages
        self._bytes += size
        self._fds += fds
        self._give_back_if_due(is_empty=not self.queue)

    def _give_back_if_due(self, *, is_empty: bool) -> None:
        if (
            is_empty
            or self._messages >= self._half_messages
            or self._bytes >= self._half_bytes
            or self._fds >= self._half_fds
        ):
            self.give_back()

    def give_back(self) -> None:
        """Return the credit of what was taken."""
        if self._messages > 0:
            self.credit(self, self._messages, self._bytes, self._fds)
            self._messages = self._bytes = self._fds = 0

    def close(self) -> None:
        """Throw away what was not taken, and close its fds."""
        while self.queue:
            self.queue.popleft()[0].close()


class Called(NamedTuple):
    """Which call of which session a request is: the reply is composed by that ``sender``, and by no other."""

    sender: Sender
    number: int


@final
class Service:
    """Calls of one server registration that no handler has taken. It outlives its session, which its calls do not."""

    __slots__ = ("concurrency", "error", "number", "over", "pattern", "queue", "wake")

    def __init__(self, pattern: str, concurrency: int) -> None:
        self.number = 0
        self.pattern = pattern
        self.concurrency = concurrency
        self.queue: collections.deque[tuple[Called, Message]] = collections.deque()
        self.wake: Callable[[], None] = no_wake
        self.over = False
        #: why it could not be put in force again
        self.error: SockbusError | None = None

    def cut(self) -> None:
        """The session has ended, and its calls with it."""
        self.close()

    def close(self) -> None:
        """Throw away what was not taken, and close its fds."""
        while self.queue:
            self.queue.popleft()[1].close()
