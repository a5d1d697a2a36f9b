"""Subscriptions of one name and pattern that share: each message goes to one of them."""

from __future__ import annotations

import heapq
from typing import final

from .parcel import Parcel
from .sink import Sink
from .subscription import Subscription

__all__ = ["Group"]


@final
class Group(Sink):
    """Subscriptions of one name and pattern that share: each message goes to one of them."""

    __slots__ = ("_order", "_order_for", "_uses", "members", "name", "pattern")

    def __init__(self, name: str, pattern: str) -> None:
        super().__init__()
        self.name = name
        self.pattern = pattern
        self.members: list[Subscription] = []
        self._uses = 0
        # A heap of the members that may be free, by load, while a parcel is shared out: for its next message a look at
        # one of them is enough, and at all of them would be a third of a second where 512 share a run.
        self._order: list[tuple[int, int, int, Subscription]] = []
        self._order_for: Parcel | None = None

    def progress(self) -> None:
        try:
            super().progress()
        finally:
            # Until the next time members come and go, and their credit.
            self._order, self._order_for = [], None

    @property
    def uses(self) -> int:
        """How often it has given something to a member."""
        return self._uses

    def _blocked(self) -> None:
        # One member stands for all: what matters is whether the group moves.
        first = self.members[0]
        first.link.wait(first)

    def _can_carry(self, parcel: Parcel) -> bool:
        return any(member.carries(parcel) for member in self.members)

    def _refuse(self, parcel: Parcel) -> None:
        min(self.members, key=_load).lose(parcel.count)
        parcel.without_fds()

    def _step(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        if self._order_for is not parcel:
            self._order = [(*_load(member), index, member) for index, member in enumerate(self.members)]
            heapq.heapify(self._order)
            self._order_for = parcel
        order = self._order
        while order:
            index, chosen = order[0][2:]
            if chosen.can_start(parcel) and (not parcel.nfds or chosen.carries(parcel)):
                if chosen.link.has_room(chosen.sent_fds(parcel)):
                    break
                chosen.link.starve(self)
            heapq.heappop(order)
        else:
            return 0, at
        self._uses += 1
        chosen.last_used = self._uses
        # One at a time where there is a choice, so that a run is shared out.
        taken = chosen.take(parcel, at, left, left if len(self.members) == 1 else 1)
        heapq.heapreplace(order, (*_load(chosen), index, chosen))
        return taken


def _load(member: Subscription) -> tuple[int, int]:
    return member.outstanding, member.last_used
