"""What the broker publishes itself: who came and who went, and the last will of who went without a word.

The events cost a look-up while nobody listens. The broker cannot be made to wait as publishers are, so what of its
messages waits for a subscription is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ..errors import LimitExceeded, SubscriptionStalled
from ..payload import NIL, encode_payload
from ..protocol.frame import Flag, Kind, encode
from ..protocol.handshake import peer_body
from .group import Group
from .parcel import Parcel
from .subscription import Subscription

if TYPE_CHECKING:
    from .hub import Hub
    from .link import Link
    from .presence import Presence
    from .sink import Sink

__all__ = ["Herald", "Will"]

JOINED = "$SYS.peer.joined"
LEFT = "$SYS.peer.left"
# Messages of the broker's own that may wait for one subscription.
MOST_WAITING = 4096
# Of the sentence that somebody was sent away with.
REASON_CHARACTERS = 240


@final
class Will:
    """What a link's peer wants published when it goes without goodbye: a PUBLISH frame, ready to go out."""

    __slots__ = ("clears", "frame", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, sender: int, number: int, *, retain: bool) -> None:
        self.topic = topic
        self.retain = retain
        self.clears = payload == NIL
        # Only what is to be kept has a number on it; without, it is a publish like most.
        self.frame = encode(
            Kind.PUBLISH,
            topic=topic.encode(),
            payload=payload,
            sender=sender,
            correlation=number if retain else 0,
            flags=Flag.RETAIN if retain else 0,
        )


@final
class Herald:
    """The origin of the broker's own publishes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @property
    def presence(self) -> Presence:
        """Whom their readers are told as the sender."""
        return self._hub.presence

    def parcel_done(self, parcel: Parcel) -> None:
        """Nobody is charged for it."""

    def joined(self, link: Link) -> None:
        """A peer was welcomed."""
        self._publish(JOINED, link)

    def left(self, link: Link) -> None:
        """A peer that was welcomed has gone, properly or not; all of its own was taken out before."""
        reason = "left"
        if not link.pump.is_closed:
            was_lost = link.at_end or link.end_reason is None
            reason = "lost" if was_lost else str(link.end_reason)[:REASON_CHARACTERS]
        if reason != "left" and link.will is not None:
            self._execute(link, link.will)
        self._publish(LEFT, link, reason=reason)

    def _execute(self, link: Link, will: Will) -> None:
        cost = len(will.frame)
        # Charged like all that its link has left behind.
        link.publish_intake.received_bytes += cost
        link.account.orphaned_bytes += cost
        self._hub.counters.messages_in += 1
        link.presence.keep()
        if will.retain:
            self._keep(link, will)
        self._hub.offer(Parcel(link, (will.frame,), 1, cost), self._hub.router.plan(will.topic).sinks)

    def _keep(self, link: Link, will: Will) -> None:
        try:
            self._hub.retained.keep(will.topic, (will.frame,), len(will.frame), None, link.presence, clears=will.clears)
        except LimitExceeded as error:
            # There is nobody left to be told.
            self._hub.log.say(link.account.key, "the will of %r was delivered and not kept: %s", link, error)

    def _publish(self, topic: str, link: Link, **more: str) -> None:
        sinks = self._hub.router.plan(topic).sinks
        if not sinks:
            return
        about = {"id": link.peer.id, **peer_body(link.peer), **more}
        frame = encode(Kind.PUBLISH, topic=topic.encode(), payload=encode_payload(about))
        self._hub.offer(Parcel(self, (frame,), 1, len(frame)), sinks)
        for sink in sinks:
            if len(sink.waiting) > MOST_WAITING:
                _end(sink)


def _end(sink: Sink) -> None:
    """No publisher can be made to wait for it."""
    for each in list(sink.members) if isinstance(sink, Group) else [sink]:
        assert isinstance(each, Subscription)
        each.link.end_subscription(
            each,
            SubscriptionStalled(
                f"the subscription to {each.pattern!r} was ended: more than {MOST_WAITING} of the broker's own "
                f"messages wait for it; take messages faster, or subscribe with an overflow that drops"
            ),
        )
