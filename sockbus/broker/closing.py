"""How a broker stops: what waits is still delivered, each peer is told, and what could not be delivered is counted.

While it stops, a broker takes what comes as before and grants no new window, so publishers fall silent by themselves
and credit still arrives. A peer for whom nothing waits, and of whose messages none does, is told GOODBYE at once, the
others as soon as that is so, or when the time of grace is over. From then on nothing is delivered to it and nothing of
it is read: what it still says of its subscriptions is not wrong, for it does not know that they have ended.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..protocol.frame import Kind, control

if TYPE_CHECKING:
    from .hub import Hub
    from .link import Link

__all__ = ["GRACE", "say_goodbye"]

log = logging.getLogger("sockbus.broker")

# Seconds that a stopping broker takes to deliver what waits.
GRACE = 5.0
# Seconds between two looks at who still waits.
LOOK = 0.01


async def say_goodbye(hub: Hub) -> None:
    """Deliver what can be delivered within ``GRACE``, say GOODBYE to every peer, and log what is left."""
    frame = control(Kind.GOODBYE, {"text": "the broker is stopping"})
    hub.is_stopping = True
    told: dict[Link, None] = {}
    with trio.move_on_after(GRACE):
        while True:
            # Anew each time: some of those that were welcome before it began say HELLO only now.
            links = list(hub.links.values())
            for link in links:
                if link not in told and _is_settled(link):
                    told[link] = None
                    link.unsubscribe()
                    link.leave_off(frame)
            hub.settle()
            if all(link in told and link.outlet.has_flushed for link in links):
                return
            await trio.sleep(LOOK)
    # Before the GOODBYEs, which are no loss.
    messages = _waiting_messages(hub) + sum(link.outlet.outbox.count_publishes() for link in hub.links.values())
    left = sum(link.outlet.outbox.queued_bytes for link in hub.links.values())
    if messages or left:
        log.warning(
            "%d messages, and %d bytes on their way to peers, could not be delivered within %g s of stopping",
            messages,
            left,
            GRACE,
        )
    for link in hub.links.values():
        if link not in told:
            link.leave_off(frame)
    hub.settle()


def _is_settled(link: Link) -> bool:
    """Whether nothing waits for this peer, and nothing of it for others."""
    if link.outlet.outbox.queued_bytes or link.pump.is_waiting:
        return False
    sinks = (subscription.group or subscription for subscription in link.subscriptions.values())
    return not any(sink.waiting_messages for sink in sinks)


def _waiting_messages(hub: Hub) -> int:
    """What waits for credit or room; for a group once."""
    sinks = dict.fromkeys(
        subscription.group or subscription
        for link in hub.links.values()
        for subscription in link.subscriptions.values()
    )
    return sum(sink.waiting_messages for sink in sinks)
