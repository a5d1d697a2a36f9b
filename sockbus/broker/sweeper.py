"""What time alone brings about: once a second, what makes no progress is ended and the rates are sampled.

(Subscriptions that make none have clocks of their own: ``stalls``.)

Links with something unfinished, or with replies that wait for them, put themselves on ``hub.watched``; nobody else
costs anything here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import ProtocolError
from .calls import REPLY_PATIENCE
from .hub import Hub
from .stats import Rates

if TYPE_CHECKING:
    from .link import Link

__all__ = ["sweep"]

SWEEP_SECONDS = 1.0


async def sweep(hub: Hub, rates: Rates) -> None:
    """Go round until cancelled."""
    while True:
        await trio.sleep(SWEEP_SECONDS)
        now = trio.current_time()
        rates.sample(hub.counters, now)
        hub.log.sum_up()
        _tidy(hub)
        _look_after(hub, now)
        hub.settle()


# Functions of their own, whose variables keep nothing alive until the next round.


def _look_after(hub: Hub, now: float) -> None:
    """End what makes no progress, and tell what was taken over."""
    for link in list(hub.watched):
        if link.late_replies:
            hub.switchboard.feed_requester(link, give_up_before=now - REPLY_PATIENCE)
        _check_progress(link, now)
        if not (link.late_replies or link.inbox.unfinished_bytes or link.pump.arrivals):
            del hub.watched[link]
    while hub.untold:
        hub.untold.popitem()[0].windows.tell_taken()


def _tidy(hub: Hub) -> None:
    """Let subscriptions that drop let go of what they need no more."""
    while hub.untidy:
        hub.untidy.popitem()[0].tidy()


def _check_progress(link: Link, now: float) -> None:
    """End a link with something unfinished that has made no progress for too long."""
    limit = link.hub.limits.incomplete_seconds
    arrivals = link.pump.arrivals
    if link.outlet.is_behind:
        # It is not read meanwhile, and so cannot make any.
        link.progress_at = arrivals.piece_at = now
    if link.inbox.unfinished_bytes and now - link.progress_at >= limit:
        link.end(ProtocolError(f"a frame was not finished within incomplete_seconds = {limit}"))
    if arrivals and now - arrivals.piece_at >= limit:
        link.end(ProtocolError(f"a message in pieces was not finished within incomplete_seconds = {limit}"))
