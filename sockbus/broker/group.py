"""Subscriptions of one name and pattern that share: each message goes to one of them."""

from __future__ import annotations

from typing import final

from .parcel import Parcel
from .sink import Sink
from .subscription import Subscription

__all__ = ["Group"]


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
        min(self.members, key=_load).lose()
        parcel.without_fds()

    def _step(self, parcel: Parcel, at: int, left: int) -> tuple[int, int]:
        free: list[Subscription] = []
        for member in self.members:
            if not member.can_start(parcel) or (parcel.nfds and not member.carries(parcel)):
                continue
            if member.link.has_room(member.sent_fds(parcel)):
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
