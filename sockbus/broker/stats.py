"""What a broker counts, and the pages that requests on ``$SYS.…`` give."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from .hub import Hub
    from .link import Link
    from .subscription import Subscription

__all__ = ["Counters", "Page", "Rates", "peers", "retained", "status", "subscriptions"]

# A page that takes longer than this to make, in seconds, is not made anew for everyone who asks.
PAGE_SECONDS = 0.005


@final
class Counters:
    """Totals since the broker started; ``receives``, ``sends``: system calls on links; ``turns``: wake-ups of links.

    ``stalled``: subscriptions that ended because their subscriber did not take what waited for them.
    """

    __slots__ = (
        "bytes_in", "bytes_out", "late_replies", "lost", "messages_in", "messages_out", "receives", "refused",
        "requests", "sends", "stalled", "turns",
    )  # fmt: skip

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    bytes_in: int
    bytes_out: int
    late_replies: int
    lost: int
    messages_in: int
    messages_out: int
    receives: int
    refused: int
    requests: int
    sends: int
    stalled: int
    turns: int

    def as_dict(self) -> dict[str, int]:
        """All of them by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@final
class Rates:
    """Messages and bytes per second over the last second or so; ``sample`` is called by the sweeper."""

    NAMES = ("messages_in", "messages_out", "bytes_in", "bytes_out")

    def __init__(self) -> None:
        self._at = 0.0
        self._before: dict[str, int] = {}
        self.per_second: dict[str, float] = dict.fromkeys(self.NAMES, 0.0)

    def sample(self, counters: Counters, now: float) -> None:
        """Take the difference to the sample before."""
        after = {name: getattr(counters, name) for name in self.NAMES}
        seconds = now - self._at
        if self._before and seconds > 0:
            self.per_second = {name: round((after[name] - self._before[name]) / seconds, 1) for name in self.NAMES}
        self._at, self._before = now, after


@final
class Page:
    """One page; where it took long to make, it serves for ten times as long, so that asking costs little."""

    def __init__(self, hub: Hub, make: Callable[[], object]) -> None:
        self._hub = hub
        self._make = make
        self._made: object = None
        self._until = 0.0

    def __call__(self) -> object:
        """Its payload."""
        began = self._hub.now()
        if began < self._until:
            return self._made
        made = self._make()
        took = self._hub.now() - began
        if took > PAGE_SECONDS:
            self._made, self._until = made, began + 10 * took
        return made


def peers(hub: Hub) -> list[dict[str, Any]]:
    """The payload of the reply on ``$SYS.peers``."""
    return [_peer(link) for link in hub.links.values()]


def subscriptions(hub: Hub) -> list[dict[str, Any]]:
    """The payload of the reply on ``$SYS.subscriptions``."""
    return [
        {
            "peer": link.number,
            "pattern": subscription.pattern,
            "group": subscription.group.name if subscription.group is not None else None,
            "overflow": subscription.overflow,
            "stall": _stall(subscription),
            "outstanding": subscription.outstanding,
            "waiting": (subscription.group or subscription).waiting_messages,
            "lost": subscription.lost,
        }
        for link in hub.links.values()
        for subscription in link.subscriptions.values()
        if not subscription.ended
    ]


def retained(hub: Hub) -> list[dict[str, Any]]:
    """The payload of the reply on ``$SYS.retained``."""
    now = hub.now()
    return [
        {
            "topic": kept.topic,
            "bytes": kept.cost,
            "fds": kept.nfds,
            "peer": kept.presence.peer.id,
            "name": kept.presence.peer.name,
            "age": round(now - kept.since, 3),
        }
        for kept in hub.retained.values.values()
    ]


def status(hub: Hub, rates: Rates, addresses: list[str], uptime: float) -> dict[str, Any]:
    """The payload of the reply on ``$SYS.status``."""
    return {
        "broker": {
            "pid": hub.peer.pid,
            "uid": hub.peer.uid,
            "addresses": addresses,
            "uptime": round(uptime, 3),
        },
        "peers": peers(hub),
        "subscriptions": subscriptions(hub),
        "servers": [
            {
                "peer": link.number,
                "pattern": server.pattern,
                "concurrency": server.concurrency,
                "outstanding": server.outstanding,
            }
            for link in hub.links.values()
            for server in link.servers.values()
        ],
        "rates": rates.per_second,
        "totals": hub.counters.as_dict(),
        "queues": {"bytes": hub.queued_bytes},
        "retained": {
            "topics": len(hub.retained.values),
            "bytes": hub.retained.bytes,
            "fds": hub.retained.fds,
            "old": {
                "values": hub.retained.old_count,
                "bytes": hub.retained.old_bytes,
                "fds": hub.retained.old_fds,
            },
        },
        "fds": {"held": hub.held_fds},
        "limits": hub.limits.as_dict(),
    }


def _stall(subscription: Subscription) -> float | None:
    """Seconds without credit that end it; None where none do, for JSON has no infinity."""
    return subscription.stall if subscription.stall != math.inf else None


def _peer(link: Link) -> dict[str, Any]:
    peer = link.peer
    return {
        "id": peer.id,
        "name": peer.name,
        "transport": peer.transport,
        "pid": peer.pid,
        "uid": peer.uid,
        "gid": peer.gid,
        "queued_bytes": link.outlet.outbox.queued_bytes,
        "held_bytes": link.publish_intake.held_bytes,
    }
