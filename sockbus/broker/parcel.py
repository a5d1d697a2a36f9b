"""What one plan gets at once, and what became of it.

A ``Parcel`` is a run of publishes, or one message, on its way to the sinks of its plan. It holds the bytes as they came
and one hold on the descriptors, knows how many sinks have not finished with it, and when the last one has, gives its
publisher the window back and the receipt. It is charged to its publisher until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

from ..fd import SharedFds

__all__ = ["Origin", "Parcel", "Tally"]


class Origin(Protocol):
    """The link that a parcel came on."""

    def parcel_done(self, parcel: Parcel) -> None: ...


@final
class Tally:
    """The numbers of a receipt, while they are counted."""

    __slots__ = ("delivered", "dropped", "matched", "number", "without_fds")

    def __init__(self, number: int, matched: int) -> None:
        self.number = number
        self.matched = matched
        self.delivered = self.dropped = self.without_fds = 0


@final
class Parcel:
    """``count`` messages for the same sinks: a run in one slice, or the frames of one message.

    ``cost``: docs/wire.md, "Pieces". ``pending``: sinks that have not finished.
    """

    __slots__ = ("cost", "count", "fds", "frames", "nfds", "origin", "pending", "tally")

    def __init__(
        self,
        origin: Origin,
        frames: Sequence[bytes],
        count: int,
        cost: int,
        fds: SharedFds | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.origin = origin
        self.frames = frames
        self.count = count
        self.cost = cost
        self.fds = fds
        self.nfds = len(fds.fds) if fds is not None else 0
        self.tally = tally
        self.pending = 0

    def delivered(self) -> None:
        """One sink has taken all of it."""
        if self.tally is not None:
            self.tally.delivered += 1
        self.finish()

    def dropped(self) -> None:
        """One sink ended before it took it."""
        if self.tally is not None:
            self.tally.dropped += 1
        self.finish()

    def without_fds(self) -> None:
        """One sink's link cannot carry its descriptors."""
        if self.tally is not None:
            self.tally.without_fds += 1
        self.finish()

    def finish(self) -> None:
        """One sink fewer; the last one ends the parcel."""
        self.pending -= 1
        if not self.pending:
            if self.fds is not None:
                self.fds.release()
            self.origin.parcel_done(self)
