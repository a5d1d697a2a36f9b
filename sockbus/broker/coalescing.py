"""Credit that comes back in small pieces is used when there is enough of it, or after a moment.

A subscriber that has emptied its queue gives back what it took, however little. Were that used at once, the next batch
would be as small, and what it gives back for that: batches would only ever shrink, and each costs a frame, a send and
a wake-up on either side (RFC 1122, 4.2.3.4, has the same of TCP's windows). While more than half of its capacity is on
its way to a subscriber, it has work, and what it gives back for that brings the rest; so it never waits for the clock
here, which is for a peer that gives back less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

import trio

from ..protocol.overflow import Overflow

if TYPE_CHECKING:
    from .subscription import Subscription

__all__ = ["HOLD_SECONDS", "LEAST_CAPACITY", "Coalescing"]

# So long at least, and twice that at most, is small credit held.
HOLD_SECONDS = 0.002
# Messages: batches of a smaller capacity are small at any rate.
LEAST_CAPACITY = 64


@final
class Coalescing:
    """The subscriptions of a broker whose credit is held. ``run`` uses what was held long enough."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # Since when.
        self._held: dict[Subscription, float] = {}
        self._first = trio.lowlevel.ParkingLot()

    def credit_came(self, subscription: Subscription) -> None:
        """Deliver what waits for a subscription outside groups, now or together with what comes next."""
        held = self._held
        if (
            LEAST_CAPACITY <= subscription.capacity_messages > 2 * subscription.messages
            and subscription.waiting
            and subscription.overflow is Overflow.BLOCK
        ):
            if subscription not in held:
                held[subscription] = self._now()
                self._first.unpark_all()
            # Slow is not stalled.
            subscription.link.wait(subscription)
            return
        held.pop(subscription, None)
        subscription.progress()

    async def run(self, settle: Callable[[], None]) -> None:
        """Use credit that has been held for long enough, until cancelled."""
        while True:
            if not self._held:
                await self._first.park()
            await trio.sleep(HOLD_SECONDS)
            self.look(self._now())
            settle()

    def look(self, now: float) -> None:
        """Use what has been held for long enough."""
        due = [subscription for subscription, since in self._held.items() if now - since >= HOLD_SECONDS]
        for subscription in due:
            del self._held[subscription]
            # One that has ended has nothing that waits.
            subscription.progress()
