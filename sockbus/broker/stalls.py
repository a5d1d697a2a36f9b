"""The rule that ends a subscription that is not taken from: no credit for ``stall`` seconds while messages wait.

Only a subscription that something waits for is here, and a clock of its own tells when to look at it next. Slow is not
stalled: what starts the clock anew is credit, and bytes of its messages that still leave. A subscription that has
credit waits for room behind others of its link, and for as long as that moves.

A group and a subscription that drops have no stall, and are here for the warning alone. A group is without credit when
no member takes anything: so one of them has the clock, and whatever any takes starts it anew.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import trio

from ..errors import SubscriptionStalled
from ..protocol.overflow import Overflow
from .outlet import Mark

if TYPE_CHECKING:
    from .group import Group
    from .link import Link
    from .parcel import Delivery
    from .subscription import Subscription

__all__ = ["WARNING_SECONDS", "Stalls"]

# Seconds without credit after which the log names a subscription, once.
WARNING_SECONDS = 5.0
# Members of a group that a line of the log names.
NAMED_MEMBERS = 8
# Between two looks at one subscription: its stall may be as short as it likes.
LEAST_SECONDS = 0.01
# Clocks that were forgotten are swept out when they are more than the others, and more than this.
FORGOTTEN = 64


@final
class _Clock:
    __slots__ = ("is_over", "link", "mark", "moves", "since", "subscription")

    def __init__(self, link: Link, subscription: Subscription, now: float) -> None:
        self.link = link
        self.subscription = subscription
        #: forgotten
        self.is_over = False
        # Its last message is before this, and may have been on its way already.
        self.mark = Mark()
        self.start(now)

    def start(self, now: float) -> None:
        """It has moved."""
        self.since = now
        self.moves = _moves(self.subscription)
        self.link.outlet.place(self.mark)


@final
class Stalls:
    """The subscriptions of a broker that messages wait for. ``run`` ends those that have stalled."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._clocks: dict[Subscription, _Clock] = {}
        # When to look, a number that makes each entry differ, and whose clock.
        self._due: list[tuple[float, int, _Clock]] = []
        self._numbers = itertools.count()
        self._sooner = trio.lowlevel.ParkingLot()

    def watch(self, link: Link, subscription: Subscription) -> None:
        """Something waits for its credit, or for room on its link."""
        clock = self._clocks.get(subscription)
        if clock is not None:
            if clock.moves != _moves(subscription):
                clock.start(self._now())
            return
        if subscription.warned and subscription.stall == math.inf:
            return
        clock = self._clocks[subscription] = _Clock(link, subscription, self._now())
        if len(self._due) > 2 * len(self._clocks) + FORGOTTEN:
            self._due = [entry for entry in self._due if not entry[2].is_over]
            heapq.heapify(self._due)
        self._look_again(clock, clock.since)
        if self._due[0][2] is clock:
            self._sooner.unpark_all()

    def forget(self, subscription: Subscription) -> None:
        """It has ended."""
        clock = self._clocks.pop(subscription, None)
        if clock is not None:
            clock.is_over = True
            clock.link.outlet.forget(clock.mark)
            # The entry stays until it is due, and must not keep them alive.
            del clock.link, clock.subscription

    async def run(self, settle: Callable[[], None]) -> None:
        """Look at each when it is due, until cancelled."""
        while True:
            if self._due:
                with trio.move_on_at(self._due[0][0]):
                    await self._sooner.park()
            else:
                await self._sooner.park()
            self.look(self._now())
            settle()

    def look(self, now: float) -> None:
        """Look at those that are due."""
        while self._due and self._due[0][0] <= now:
            clock = heapq.heappop(self._due)[2]
            if clock.is_over:
                continue
            subscription = clock.subscription
            head = (subscription.group or subscription).head
            if head is None:
                self.forget(subscription)
                continue
            self._note_progress(clock, head)
            # Credit that came in time may be held, and be enough.
            if now - clock.since >= subscription.stall and not clock.link.hub.coalescing.use(subscription):
                clock.link.end_subscription(subscription, _stalled(subscription))
                continue
            if now - clock.since >= WARNING_SECONDS and not subscription.warned:
                subscription.warned = _warn(clock)
            if subscription.warned and subscription.stall == math.inf:
                self.forget(subscription)
            else:
                self._look_again(clock, now)

    def _look_again(self, clock: _Clock, now: float) -> None:
        subscription = clock.subscription
        seconds = subscription.stall if subscription.warned else min(subscription.stall, WARNING_SECONDS)
        due = clock.since + seconds
        if due <= now:
            # The log had too much to say to name it.
            due = min(clock.since + subscription.stall, now + WARNING_SECONDS)
        heapq.heappush(self._due, (max(due, now + LEAST_SECONDS), next(self._numbers), clock))

    def _note_progress(self, clock: _Clock, head: Delivery) -> None:
        # What leaves when its own messages have left is others', but for one with credit.
        moved_at = clock.mark.moved_at
        if moved_at is None or clock.subscription.can_start(head):
            moved_at = clock.link.outlet.moved_at
        clock.since = max(clock.since, moved_at)


def _moves(subscription: Subscription) -> tuple[int, int]:
    """Differs whenever credit came, or a message was delivered; in a group to any of its members."""
    group = subscription.group
    return subscription.returned, subscription.messages if group is None else group.uses


def _figures(subscription: Subscription) -> str:
    return (
        f"{subscription.waiting_messages} messages wait and {subscription.outstanding} are outstanding, of a capacity "
        f"of {subscription.capacity_messages} messages and {subscription.capacity_bytes} bytes"
    )


def _stalled(subscription: Subscription) -> SubscriptionStalled:
    return SubscriptionStalled(
        f"the subscription to {subscription.pattern!r} was ended: no credit came back for stall = "
        f"{subscription.stall:g} s while {_figures(subscription)}; take messages faster, or subscribe with a longer "
        f"stall or an overflow that drops"
    )


def _warn(clock: _Clock) -> bool:
    """Name it in the log; whether that was possible."""
    link, subscription = clock.link, clock.subscription
    if subscription.group is not None:
        return _warn_of_group(link, subscription.group)
    outcome = "publishers to it wait. It should take messages faster, or subscribe with an overflow that drops"
    if subscription.overflow is not Overflow.BLOCK:
        outcome = (
            f"what its overflow {subscription.overflow.value!r} drops meanwhile is lost to it. Its program is stopped, "
            f"or should let its bus run"
        )
    return link.hub.log.say(
        f"{link.account.key}, subscriptions without credit",
        "%r gave no credit back for %g s on its subscription to %r: %s; %s",
        link,
        WARNING_SECONDS,
        subscription.pattern,
        _figures(subscription),
        outcome,
        name=f"{subscription.pattern!r} of peer {link.number}",
    )


def _warn_of_group(link: Link, group: Group) -> bool:
    members = group.members
    names = ", ".join(repr(member.link) for member in members[:NAMED_MEMBERS])
    more = f" and {len(members) - NAMED_MEMBERS} more" if len(members) > NAMED_MEMBERS else ""
    has_said = link.hub.log.say(
        f"{link.account.key}, subscriptions without credit",
        "the group %r on %r took nothing for %g s: %d messages wait and %d are outstanding at its %d members, %s%s; "
        "publishers to it wait. They should take messages faster, or more should join them",
        group.name,
        group.pattern,
        WARNING_SECONDS,
        group.waiting_messages,
        sum(member.outstanding for member in members),
        len(members),
        names,
        more,
        name=f"the group {group.name!r} on {group.pattern!r}",
    )
    if has_said:
        for member in members:
            # Whoever has the clock next.
            member.warned = True
    return has_said
