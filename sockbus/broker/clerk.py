"""The frames by which a peer arranges things: who it is, what it wants to hear, what it serves, what it gives back.

Each is checked as docs/wire.md has it before anything changes; what is wrong raises, and ends the link.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from ..errors import LimitExceeded, MessageTooLarge, PermissionDenied, ProtocolError
from ..message import Peer
from ..protocol import body
from ..protocol.frame import MAX_FRAME, Flag, Kind, control
from ..protocol.handshake import FDS, LIMIT_NAMES, Hello, Welcome
from ..protocol.inbox import Run
from ..protocol.overflow import Overflow
from ..topic import is_reserved, parse_pattern, parse_topic
from ..transport.listener import admit_fds
from .call import Server
from .herald import Will
from .lossy import Lossy
from .subscription import Subscription
from .watches import Watch

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Clerk", "publishable"]

MAX_GROUP_BYTES = 255
MAX_CREDIT = 1 << 62


def publishable(raw: bytes) -> str:
    """The topic that a peer publishes on; InvalidTopic, PermissionDenied."""
    topic = parse_topic(raw)
    if is_reserved(topic):
        raise PermissionDenied(f"topic {topic!r} begins with $ and belongs to the broker; use another name")
    return topic


@final
class Clerk:
    """The arrangements of one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._hub = link.hub
        self.handlers: dict[int, Callable[[Run], None]] = {
            Kind.HELLO: self._on_hello,
            Kind.GOODBYE: self._on_goodbye,
            Kind.SUBSCRIBE: self._on_subscribe,
            Kind.UNSUBSCRIBE: self._on_unsubscribe,
            Kind.CREDIT: self._on_credit,
            Kind.SERVE: self._on_serve,
            Kind.UNSERVE: self._on_unserve,
            Kind.WILL: self._on_will,
            Kind.WATCH: self._on_watch,
            Kind.UNWATCH: self._on_unwatch,
            Kind.CANCEL: self._on_cancel,
            Kind.RECEIVED: self._on_received,
        }

    def check_number(self, number: int) -> None:
        """ProtocolError when a peer may not number something new so."""
        if number % 2 == 0:
            raise ProtocolError(f"{number} numbers something that this peer starts; it takes odd numbers")
        link = self._link
        if any(number in started for started in (link.subscriptions, link.servers, link.requests, link.watches)):
            raise ProtocolError(f"number {number} is in use already; use each once")

    def _on_hello(self, run: Run) -> None:
        hello = Hello.decode(run)
        link, limits = self._link, self._hub.limits
        link.carries_fds = link.transport.carries_fds and FDS in hello.features
        peer = link.peer
        link.presence.peer = Peer(peer.id, hello.name, peer.transport, peer.uid, peer.gid, peer.pid)
        link.inbox.carries_fds = link.carries_fds
        link.inbox.max_fds = limits.message_fds
        link.inbox.max_frame = MAX_FRAME
        if link.carries_fds:
            admit_fds(link.transport)
        in_force = {**limits.as_dict(), "frame_bytes": MAX_FRAME}
        welcome = Welcome(
            features=(FDS,) if link.carries_fds else (),
            you=link.peer,
            broker_pid=self._hub.peer.pid or 0,
            broker_uid=self._hub.peer.uid or 0,
            window=link.windows.told(),
            limits={name: in_force[name] for name in LIMIT_NAMES},
        )
        link.put_control(welcome.encode())
        link.open()

    def _on_goodbye(self, run: Run) -> None:
        body.mapping(run)

    def _on_subscribe(self, run: Run) -> None:
        link = self._link
        self.check_number(run.correlation)
        pattern = parse_pattern(run.topic)
        values = body.mapping(run)
        messages, size, fds = body.numbers(values, "credit", 3)
        if not all(1 <= part <= MAX_CREDIT for part in (messages, size, fds)):
            raise ProtocolError(f"credit [{messages}, {size}, {fds}] has a part that is not from 1 to 2**62")
        outstanding = body.numbers(values, "outstanding", 3) if "outstanding" in values else (0, 0, 0)
        if outstanding[0] > messages or max(outstanding) > MAX_CREDIT:
            raise ProtocolError(f"outstanding {list(outstanding)} is more than the credit [{messages}, {size}, {fds}]")
        group = body.optional_text(values, "group")
        if group is not None and not 0 < len(group.encode()) <= MAX_GROUP_BYTES:
            raise ProtocolError(f"the group's name has {len(group.encode())} bytes; 1 to {MAX_GROUP_BYTES} are allowed")
        policy = body.text(values, "fds")
        if policy not in ("reject", "strip"):
            raise ProtocolError(f"the fds policy {policy!r:.40} is neither 'reject' nor 'strip'")
        overflow = _overflow(values)
        if group is not None and overflow is not Overflow.BLOCK:
            raise ProtocolError(f"a group waits for its members; overflow {overflow!r} is for a subscription alone")
        stall = body.optional_seconds(values, "stall")
        if group is not None:
            stall = math.inf
        self._below_subscriptions()
        subscription: Subscription
        if overflow is Overflow.BLOCK:
            subscription = Subscription(
                link,
                run.correlation,
                pattern,
                (messages, size, fds),
                strip=policy == "strip",
                stall=self._hub.limits.stall_seconds if stall is None else stall,
            )
        else:
            subscription = Lossy(
                link, run.correlation, pattern, (messages, size, fds), strip=policy == "strip", overflow=overflow
            )
        subscription.spend(*outstanding)
        link.subscriptions[run.correlation] = subscription
        # In front of whatever it is about to be given.
        link.put_control(control(Kind.OK, correlation=run.correlation))
        self._hub.subscribe(subscription, group)

    def _on_unsubscribe(self, run: Run) -> None:
        body.nothing(run)
        subscription = self._link.subscriptions.pop(run.correlation, None)
        if subscription is None:
            raise ProtocolError(f"subscription {run.correlation} does not exist")
        if isinstance(subscription, Lossy) and not subscription.ended:
            # Its client may be the one that had to drop, and counts.
            self._hub.take_leave(subscription)
        elif not subscription.ended:
            self._hub.unsubscribe([subscription])
        # Behind what is on its way to it.
        self._link.put_last(control(Kind.OK, correlation=run.correlation))

    def _on_credit(self, run: Run) -> None:
        messages, size, fds = body.integers(run, 3)
        subscription = self._link.subscriptions.get(run.correlation)
        if subscription is None:
            raise ProtocolError(f"credit came for subscription {run.correlation}, which does not exist")
        if subscription.ended:
            # It has crossed the ERROR that says so.
            return
        if not subscription.give_back(messages, size, fds):
            raise LimitExceeded(
                f"credit of {messages} messages, {size} bytes and {fds} fds for subscription {run.correlation} is more "
                f"than was taken"
            )
        if subscription.group is not None:
            subscription.group.progress()
        else:
            self._hub.coalescing.credit_came(subscription)

    def _on_serve(self, run: Run) -> None:
        link = self._link
        self.check_number(run.correlation)
        pattern = parse_pattern(run.topic)
        if is_reserved(pattern):
            raise PermissionDenied(f"pattern {pattern!r} begins with $ and belongs to the broker; serve another name")
        concurrency = body.number(body.mapping(run), "concurrency")
        most = self._hub.limits.pending_requests
        if not 1 <= concurrency <= most:
            raise ProtocolError(f"a concurrency of {concurrency} is not from 1 to pending_requests = {most}")
        self._below("servers", len(link.servers), self._hub.limits.servers)
        link.put_control(control(Kind.OK, correlation=run.correlation))
        self._hub.switchboard.serve(Server(link, run.correlation, pattern, concurrency))

    def _on_unserve(self, run: Run) -> None:
        body.nothing(run)
        server = self._link.servers.get(run.correlation)
        if server is None:
            raise ProtocolError(f"server {run.correlation} does not exist")
        self._hub.switchboard.unserve([server])
        self._link.put_last(control(Kind.OK, correlation=run.correlation))

    def _on_will(self, run: Run) -> None:
        link = self._link
        self.check_number(run.correlation)
        topic = publishable(run.topic)
        payload = run.body
        limit = self._hub.limits.message_bytes
        if len(payload) > limit:
            raise MessageTooLarge(f"a will of {len(payload)} bytes exceeds message_bytes = {limit}; make it smaller")
        link.will = Will(topic, payload, link.number, run.correlation, retain=bool(run.flags & Flag.RETAIN))
        link.put_control(control(Kind.OK, correlation=run.correlation))

    def _on_watch(self, run: Run) -> None:
        link = self._link
        self.check_number(run.correlation)
        pattern = parse_pattern(run.topic)
        subscribers, servers = body.integers(run, 2)
        self._below_subscriptions()
        watch = link.watches[run.correlation] = Watch(link, run.correlation, pattern, subscribers, servers)
        self._hub.watches.begin(watch)

    def _on_unwatch(self, run: Run) -> None:
        body.nothing(run)
        watch = self._link.watches.pop(run.correlation, None)
        if watch is None:
            raise ProtocolError(f"watch {run.correlation} does not exist")
        frame = control(Kind.OK, correlation=run.correlation)
        if self._hub.watches.end(watch):
            self._link.put_control(frame)
        self._link.put_control(frame)

    def _below_subscriptions(self) -> None:
        link = self._link
        self._below("subscriptions", len(link.subscriptions) + len(link.watches), self._hub.limits.subscriptions)

    def _below(self, name: str, count: int, limit: int) -> None:
        if count >= limit:
            raise LimitExceeded(f"this connection has {count} {name}, as many as {name} = {limit} allows; leave one")

    def _on_cancel(self, run: Run) -> None:
        body.nothing(run)
        self._hub.switchboard.cancel(self._link, run.correlation)

    def _on_received(self, run: Run) -> None:
        self._link.outlet.acknowledge_fds(body.integer(run))


def _overflow(values: dict[str, Any]) -> Overflow:
    word = body.optional_text(values, "overflow")
    try:
        return Overflow.BLOCK if word is None else Overflow(word)
    except ValueError:
        raise ProtocolError(f"the overflow policy {word!r:.40} is none of {', '.join(Overflow)}") from None
