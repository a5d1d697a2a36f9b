"""Credit that comes back in small pieces is used when there is enough of it, or after a moment.

A subscriber that has emptied its queue gives back what it took, however little. Were that used at once, the next batch
would be as small, and what it gives back for that: batches would only ever shrink, and each costs a frame, a send and
a wake-up on either side (RFC 1122, 4.2.3.4, has the same of TCP's windows). On this machine a subscriber to which more
than half of its capacity is on its way has work, and what it gives back for that brings the rest; so it never waits for
the clock here, which is for a peer that gives back less. From another host it may wait for what is still on the wire,
so nothing is held there.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, final

import trio

from ..protocol.overflow import Overflow

if TYPE_CHECKING:
    from .hub import Hub
    from .subscription import Subscription

__all__ = ["ENOUGH", "HOLD_SECONDS", "LEAST_CAPACITY", "Coalescing"]

# Credit is held for so long, and used at the next look: as much later at most, unless the broker is late itself.
HOLD_SECONDS = 0.002
# Messages: what costs little for each of them, however large the capacity.
ENOUGH = 512
# Messages: batches of a smaller capacity are small at any rate.
LEAST_CAPACITY = 64
# Seconds of delivering after which others run.
TURN_SECONDS = 0.002


@final
class Coalescing:
    """The subscriptions of a broker whose credit is held. ``run`` uses what was held long enough."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # Since when, the oldest first.
        self._held: collections.OrderedDict[Subscription, float] = collections.OrderedDict()
        self._idle = trio.lowlevel.ParkingLot()

    def credit_came(self, subscription: Subscription) -> None:
        """Deliver what waits for a subscription outside groups, now or together with what comes next."""
        if not _would_shrink(subscription):
            self._held.pop(subscription, None)
            subscription.progress()
            return
        # It counts as given back when it came: the stall starts anew.
        subscription.link.wait(subscription)
        if subscription not in self._held:
            self._held[subscription] = self._hub.now()
            self._idle.unpark_all()

    def use(self, subscription: Subscription) -> bool:
        """Use what is held of a subscription's; whether anything was.

        It happens outside the turns of its link, and a fault of the broker's own costs that link alone here too.
        """
        if self._held.pop(subscription, None) is None:
            return False
        try:
            # One that has ended has nothing that waits.
            subscription.progress()
        except Exception as error:  # noqa: BLE001  # as in Link.run
            subscription.link.end(self._hub.fault(subscription.link, error))
        return True

    async def run(self, settle: Callable[[], None]) -> None:
        """Use credit that has been held for long enough, until cancelled."""
        while True:
            if not self._held:
                await self._idle.park()
            await trio.sleep(HOLD_SECONDS)
            while self.turn(self._hub.now()):
                settle()
                await trio.lowlevel.checkpoint()
            settle()

    def turn(self, now: float) -> bool:
        """Use what has been held for long enough, until that or ``TURN_SECONDS`` end; whether time ended."""
        end = perf_counter() + TURN_SECONDS
        while self._held:
            subscription = next(iter(self._held))
            if now - self._held[subscription] < HOLD_SECONDS:
                break
            self.use(subscription)
            if perf_counter() > end:
                return True
        return False


def _would_shrink(subscription: Subscription) -> bool:
    """Whether the next batch would be small, and credit for a larger one is still to come."""
    return (
        LEAST_CAPACITY <= subscription.capacity_messages > 2 * subscription.messages
        and subscription.messages < ENOUGH
        and bool(subscription.waiting)
        and subscription.overflow is Overflow.BLOCK
        and subscription.link.is_local
    )
