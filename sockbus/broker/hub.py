"""What all links of one broker share: routers, limits, accounts of what is queued, and the links to settle.

Everything that a turn of one link does to others ends in ``settle``, once per turn: windows that are due are told,
and each touched link is flushed with one direct send. Nothing here awaits, so between two turns every account is
whole.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from ..errors import ProtocolError, SockbusError
from ..message import Peer
from ..protocol.frame import Kind, control
from ..routing.router import Router
from .admission import Account, Admission
from .calls import Switchboard
from .coalescing import Coalescing
from .config import Limits
from .group import Group
from .herald import Herald
from .mortality import Mortality
from .parcel import Parcel
from .presence import Presence
from .quiet import QuietLog
from .retained import Retained
from .sink import Sink
from .stalls import Stalls
from .stats import Counters
from .subscription import Subscription
from .watches import Watches

if TYPE_CHECKING:
    from .holdings import Holdings
    from .link import Link

__all__ = ["Hub"]

log = logging.getLogger("sockbus.broker")

# Seconds between two reads of one publisher while the broker is full.
EASE = 0.1


class Hub:
    """The shared part of a broker."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counters = Counters()
        self.log = QuietLog("sockbus.broker")
        self.admission = Admission(limits)
        self.router: Router[Sink] = Router()
        self.switchboard = Switchboard(self)
        self.groups: dict[tuple[str, str], Group] = {}
        self.links: dict[int, Link] = {}
        self.touched: dict[Link, None] = {}
        #: links with something unfinished, for the sweeper
        self.watched: dict[Link, None] = {}
        #: links to tell, within a second, what was taken over of theirs
        self.untold: dict[Link, None] = {}
        #: links for whose subscriptions bytes are kept of messages that are gone, for the sweeper
        self.untidy: dict[Holdings, None] = {}
        self.stalls = Stalls(self.now)
        self.coalescing = Coalescing(self)
        self.queued_bytes = 0
        self.held_fds = 0
        #: the broker as a peer: the sender of what it replies itself
        self.peer = Peer(0, "sockbus broker", "broker", os.geteuid(), os.getegid(), os.getpid())
        self.presence = Presence(None, self.peer)
        # It is never gone.
        self.presence.keep()
        self.herald = Herald(self)
        self.mortality = Mortality()
        self.retained = Retained(self)
        self.watches = Watches(self)
        #: what goes now goes because the broker does
        self.is_stopping = False
        #: bound addresses of the listeners, as getsockname(2) gives them
        self.own_names: set[object] = set()
        self._relief = trio.lowlevel.ParkingLot()
        self._next_peer = 1

    def new_peer_number(self) -> int:
        """A number that no peer of this broker ever had."""
        number = self._next_peer
        self._next_peer += 1
        return number

    @property
    def full(self) -> bool:
        """Whether so much is queued or held that publishers are not read at full speed."""
        # What is kept does not go when others wait, and has a limit of its own.
        held_fds = self.held_fds - self.retained.held_fds
        return self.queued_bytes >= self.limits.total_queue_bytes or held_fds >= self.limits.total_fds

    def now(self) -> float:
        """Seconds on the runtime's clock."""
        return trio.current_time()

    def orphan_done(self, account: Account, cost: int) -> None:
        """Something that was left behind has gone: those who waited for that may be granted more."""
        was_overdrawn = self.admission.is_overdrawn(account)
        account.orphaned_bytes -= cost
        self.admission.forget(account)
        if was_overdrawn and not self.admission.is_overdrawn(account):
            for link in account.links:
                self.touched[link] = None

    async def ease(self) -> None:
        """Hold a publisher up while the broker is full; not for good, for what it sends may be what makes room."""
        with trio.move_on_after(EASE):
            await self._relief.park()

    def fds_released(self, count: int) -> None:
        """Descriptors that the broker held were handed to be closed."""
        self.held_fds -= count

    def offer(self, parcel: Parcel, sinks: Sequence[Sink]) -> None:
        """Give a parcel to the sinks of its plan."""
        # One hold of its own, so that it is not done before every sink has seen it.
        parcel.pending = 1
        for sink in sinks:
            sink.offer(parcel)
        parcel.finish()

    def subscribe(self, subscription: Subscription, group: str | None) -> None:
        """Put a subscription in force, with the kept values that it matches in front of what is published from now."""
        self.watches.look()
        if group is None:
            self.retained.show(subscription, subscription.pattern)
            self.router.add(subscription.pattern, subscription)
            subscription.progress()
            return
        key = (group, subscription.pattern)
        shared = self.groups.get(key)
        if shared is None:
            shared = self.groups[key] = Group(*key)
            self.retained.show(shared, subscription.pattern)
            self.router.add(subscription.pattern, shared)
        subscription.group = shared
        shared.members.append(subscription)
        shared.progress()

    def unsubscribe(self, subscriptions: list[Subscription]) -> None:
        """End subscriptions: what waits for them alone is dropped, what waits for a group goes to its other members."""
        ended: list[tuple[str, Sink]] = []
        shrunk: dict[Group, None] = {}
        for subscription in subscriptions:
            subscription.untold = 0
            self.stalls.forget(subscription)
            group = subscription.group
            if group is None:
                ended.append((subscription.pattern, subscription))
                continue
            group.members.remove(subscription)
            if group.members:
                shrunk[group] = None
            else:
                shrunk.pop(group, None)
                del self.groups[group.name, group.pattern]
                ended.append((group.pattern, group))
        self.router.remove_all(ended)
        for _, sink in ended:
            self.retained.forget(sink)
            sink.close()
        for group in shrunk:
            group.progress()

    def take_leave(self, subscription: Subscription) -> None:
        """End a subscription, and tell its peer of every loss."""
        lost = subscription.give_up()
        self.unsubscribe([subscription])
        subscription.untold = lost
        subscription.tell_lost()

    def end_subscription(self, link: Link, subscription: Subscription, error: SockbusError) -> None:
        """The broker ends a subscription: its peer learns what was lost, and why, behind what was delivered."""
        self.take_leave(subscription)
        link.put_last(control(Kind.ERROR, {"code": error.code, "text": str(error)}, correlation=subscription.number))
        self.counters.stalled += 1
        # A subject of its own, so that what else its user does wrong does not hold it back.
        subject = f"{link.account.key}, ended subscriptions"
        self.log.say(subject, "%r: %s", link, error, name=f"{subscription.pattern!r} of peer {link.number}")

    def fault(self, who: object, error: Exception) -> ProtocolError:
        """``who`` met a fault of the broker's own, which is logged; what to end it with."""
        log.error("%r ran into a fault of the broker's", who, exc_info=error)
        return ProtocolError("the broker met a fault of its own; see its log")

    def settle(self) -> None:
        """Finish the turn: tell windows, flush everyone who was touched, account for what is queued."""
        while self.touched:
            touched, self.touched = self.touched, {}
            for link in touched:
                link.settle()
        if self._relief and not self.full:
            self._relief.unpark_all()
