"""Where parcels go: what a plan holds, and the order in which each of them waits.

A sink takes a parcel at once where there is credit and nothing waits before it, else the parcel waits in order; what
waits is charged to its publisher, never to the sink. ``progress`` is called when credit or room came back. Nothing
here is ever dropped but by the end of the sink.
"""

from __future__ import annotations

import collections
from abc import ABC, abstractmethod
from collections.abc import Sequence

from .parcel import Delivery, Gap, Parcel

__all__ = ["Sink"]


class Sink(ABC):
    """One match of a plan. ``waiting``: parcels in order; the head may have been taken in part."""

    __slots__ = ("_at", "_left", "waiting")

    def __init__(self) -> None:
        self.waiting: collections.deque[Parcel] = collections.deque()
        self._at = 0  # where in the head's slice the next message starts
        self._left = 0  # messages left in the head

    @property
    def waiting_messages(self) -> int:
        """How many wait."""
        if not self.waiting:
            return 0
        return sum(parcel.count for parcel in self.waiting) - self.waiting[0].count + self._left

    @property
    def head(self) -> Delivery | None:
        """What waits in front."""
        return self.waiting[0] if self.waiting else None

    def offer(self, parcel: Parcel) -> None:
        """Take a parcel, or keep it waiting."""
        parcel.pending += 1
        self.waiting.append(parcel)
        if len(self.waiting) == 1:
            self._at, self._left = 0, parcel.count
            self.progress()

    def begin_with(self, parcels: Sequence[Parcel]) -> None:
        """Let them wait in front of all that is offered later, before the first ``progress``."""
        for parcel in parcels:
            parcel.pending += 1
        self.waiting.extend(parcels)
        if self.waiting:
            self._left = self.waiting[0].count

    def merge_given_up(self) -> bool:
        """Make one of kept values in a row that were given up, for each takes memory; whether there are others."""
        front: list[Parcel] = []
        others = False
        while self.waiting and self.waiting[0].retained:
            parcel = self.waiting.popleft()
            if parcel.nfds >= 0:
                front.append(parcel)
                others = True
                continue
            if not front or not isinstance(front[-1], Gap):
                front.append(Gap(parcel.origin))
            front[-1].count += parcel.count
            parcel.finish()
        self.waiting.extendleft(reversed(front))
        if front and isinstance(front[0], Gap):
            self._at, self._left = 0, front[0].count
        return others

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
                self._blocked()
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

    def _blocked(self) -> None:  # noqa: B027  # not every sink minds
        """Something waits for credit or room."""

    @abstractmethod
    def _can_carry(self, parcel: Parcel) -> bool: ...

    @abstractmethod
    def _refuse(self, parcel: Parcel) -> None: ...

    @abstractmethod
    def _step(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        """Take some messages of a parcel, from ``at`` on; how many, and where the next one starts."""
