"""What one plan gets at once, and what became of it.

A ``Parcel`` is a run of publishes, or one message, on its way to the sinks of its plan. It holds the bytes as they came
and one hold on the descriptors, knows how many sinks have not finished with it, and when the last one has, gives its
publisher the window back. It is charged to its publisher until then. A ``Tally`` counts for a receipt, which may come
later than that: a subscription that drops what it cannot take has its own queue, and tells when it has left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, final

from ..fd import SharedFds
from ..protocol.inbox import topics

if TYPE_CHECKING:
    from .presence import Presence

__all__ = ["Asker", "Delivery", "Gap", "Origin", "Parcel", "Tally"]

# Bytes that a parcel takes while it waits, besides its frames, and for each sink that it waits for. A message of a few
# bytes that wants a receipt was measured to take 360.
PARCEL_BYTES = 384
SINK_BYTES = 8


class Origin(Protocol):
    """The link that a parcel came on."""

    @property
    def presence(self) -> Presence: ...
    def parcel_done(self, parcel: Parcel) -> None: ...


class Asker(Protocol):
    """Whoever wants a receipt; it may have gone."""

    def receipt(self, tally: Tally) -> None: ...


class Delivery(Protocol):
    """Messages that a subscription can be given."""

    @property
    def count(self) -> int: ...
    @property
    def cost(self) -> int: ...
    @property
    def frames(self) -> Sequence[bytes]: ...
    @property
    def fds(self) -> SharedFds | None: ...
    @property
    def nfds(self) -> int: ...
    @property
    def presence(self) -> Presence: ...
    @property
    def retained(self) -> bool: ...


@final
class Tally:
    """The numbers of a receipt, while they are counted; ``asker`` gets it when they add up to ``matched``."""

    __slots__ = ("_asker", "delivered", "dropped", "matched", "number", "without_fds")

    def __init__(self, asker: Asker, number: int, matched: int) -> None:
        self._asker = asker
        self.number = number
        self.matched = matched
        self.delivered = self.dropped = self.without_fds = 0

    def add(self, *, delivered: int = 0, dropped: int = 0, without_fds: int = 0) -> None:
        """What became of it at one more match; at none, where none is."""
        self.delivered += delivered
        self.dropped += dropped
        self.without_fds += without_fds
        if self.delivered + self.dropped + self.without_fds == self.matched:
            self._asker.receipt(self)


class Parcel:
    """``count`` messages for the same sinks: a run in one slice, or the frames of one message.

    ``cost``: docs/wire.md, "Pieces". ``answered``: its publisher is told of it by itself. ``pending``: sinks that have
    not finished. ``nfds``: -1 where what it held was given up, which no sink can carry.
    """

    __slots__ = ("_newest", "answered", "cost", "count", "fds", "frames", "nfds", "origin", "pending", "tally")

    #: whether it is the kept value of a topic, and not on its way just now
    retained = False

    def __init__(
        self,
        origin: Origin,
        frames: Sequence[bytes],
        count: int,
        cost: int,
        fds: SharedFds | None = None,
        tally: Tally | None = None,
        *,
        answered: bool = False,
    ) -> None:
        self.answered = answered
        self.origin = origin
        self.frames = frames
        self.count = count
        self.cost = cost
        self.fds = fds
        self.nfds = len(fds.fds) if fds is not None else 0
        self.tally = tally
        self.pending = 0
        self._newest: list[tuple[bytes, int, bytes]] | None = None

    @property
    def presence(self) -> Presence:
        """Whose it is."""
        return self.origin.presence

    @property
    def newest(self) -> list[tuple[bytes, int, bytes]]:
        """Of each topic in a run its last message: the topic, the message's place, from 1 on, and its frame; in order.

        Looked up once, however many ask, until it is forgotten.
        """
        if self._newest is None:
            data = self.frames[0]
            found: dict[bytes, tuple[int, int, int]] = {}
            for place, (topic, start, after) in enumerate(topics(data, 0, len(data)), 1):
                found.pop(topic, None)
                found[topic] = place, start, after
            self._newest = [(topic, place, data[start:after]) for topic, (place, start, after) in found.items()]
        return self._newest

    def forget_newest(self) -> None:
        """Every sink has seen it, and it waits: this would be more than all of its bytes."""
        self._newest = None

    @property
    def overhead(self) -> int:
        """Bytes that it takes while it waits, beyond its cost: for the broker's accounts, and not in a window."""
        return PARCEL_BYTES + SINK_BYTES * self.pending + sum(map(len, self.frames)) - self.cost

    def delivered(self) -> None:
        """One sink has taken all of it."""
        if self.tally is not None:
            self.tally.add(delivered=1)
        self.finish()

    def dropped(self) -> None:
        """One sink ended before it took it."""
        if self.tally is not None:
            self.tally.add(dropped=1)
        self.finish()

    def without_fds(self) -> None:
        """One sink's link cannot carry its descriptors."""
        if self.tally is not None:
            self.tally.add(without_fds=1)
        self.finish()

    def finish(self) -> None:
        """One sink fewer; the last one ends the parcel."""
        self.pending -= 1
        if not self.pending:
            if self.fds is not None:
                self.fds.release()
            self.origin.parcel_done(self)


@final
class Gap(Parcel):
    """The place of ``count`` kept values that were given up, for one sink, which loses them."""

    __slots__ = ()

    retained = True

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin, (), 0, 0)
        self.nfds = -1
        self.pending = 1
