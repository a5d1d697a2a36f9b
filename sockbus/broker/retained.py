"""The last values of topics, kept for those who subscribe later: ``publish(retain=True)``.

A value is a parcel that stays: the store has one hold on it, and each sink that it waits for has another. It is charged
to nobody and bounded by limits of its own, whoever published it and whether that peer still lives; what it came with,
descriptors too, lives as long. What was replaced while it still waits for somebody is bounded once more, by the same
limits: beyond them the oldest are given up, and those whom they were for lose them, counted. What was given up leaves
its place where it is missing, and many in a row leave one.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from ..errors import LimitExceeded
from ..fd import SharedFds
from ..topic import has_wildcard, matcher
from .parcel import Parcel

if TYPE_CHECKING:
    from .hub import Hub
    from .presence import Presence
    from .sink import Sink

__all__ = ["Kept", "Retained"]


@final
class Kept(Parcel):
    """The value of one topic. ``since``: when it came."""

    __slots__ = ("_presence", "since", "topic")

    retained = True

    def __init__(
        self,
        store: Retained,
        topic: str,
        frames: Sequence[bytes],
        cost: int,
        fds: SharedFds | None,
        presence: Presence,
        since: float,
    ) -> None:
        super().__init__(store, frames, 1, cost, fds)
        self.topic = topic
        self.since = since
        self._presence = presence
        self.pending = 1
        presence.keep()
        if fds is not None:
            fds.hold()

    @property
    def presence(self) -> Presence:
        """Whose it is."""
        return self._presence

    def give_up(self) -> None:
        """Those for whom it waits lose it; what stays until they hear of that is as little as can be."""
        self.frames = ()
        self.topic = ""
        if self.fds is not None:
            self.fds.release()
            self.fds = None
        # No sink can carry that.
        self.nfds = -1


@final
class Retained:
    """The kept values of a broker, by topic. ``bytes`` and ``fds`` are theirs, and ``old_…`` of those replaced."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.limits
        self.values: dict[str, Kept] = {}
        self.bytes = self.fds = 0
        # Those who were shown values; first whose were merged longest ago.
        self._readers: collections.OrderedDict[Sink, None] = collections.OrderedDict()
        # Values that were given up, and have a place yet where they are missing.
        self._given_up = 0
        # Replaced, and waiting for somebody; oldest first.
        self._old: dict[Kept, None] = {}
        self.old_bytes = self.old_fds = 0

    @property
    def presence(self) -> Presence:
        """Of the origin of what has none of its own: the broker's."""
        return self._hub.presence

    @property
    def old_count(self) -> int:
        """Values that were replaced and wait for somebody."""
        return len(self._old)

    @property
    def held_fds(self) -> int:
        """Descriptors that are kept, with those of old values that wait for somebody."""
        return self.fds + self.old_fds

    def keep(
        self, topic: str, frames: Sequence[bytes], cost: int, fds: SharedFds | None, presence: Presence, *, clears: bool
    ) -> None:
        """Keep a value in place of the one before, or clear the topic; LimitExceeded, and nothing changed, when full.

        Takes a hold of its own on the descriptors.
        """
        if not clears:
            self._check_room(topic, cost, len(fds.fds) if fds is not None else 0)
        before = self.values.pop(topic, None)
        if before is not None:
            self.bytes -= before.cost
            self.fds -= before.nfds
        if not clears:
            kept = self.values[topic] = Kept(self, topic, frames, cost, fds, presence, self._hub.now())
            self.bytes += cost
            self.fds += kept.nfds
        if before is not None:
            self._retire(before)

    def matching(self, pattern: str) -> list[Kept]:
        """The values of all topics that a pattern matches, those first that came first."""
        if has_wildcard(pattern):
            matches = matcher(pattern)
            return [kept for topic, kept in self.values.items() if matches(topic)]
        kept = self.values.get(pattern)
        return [] if kept is None else [kept]

    def show(self, sink: Sink, pattern: str) -> None:
        """Let a new sink begin with the values that its pattern matches."""
        values = self.matching(pattern)
        if values:
            sink.begin_with(values)
            self._readers[sink] = None

    def forget(self, sink: Sink) -> None:
        """A sink has ended."""
        self._readers.pop(sink, None)

    def close(self) -> None:
        """The broker has ended, and no link is left that a value could wait for."""
        while self.values:
            self._retire(self.values.popitem()[1])
        self.bytes = self.fds = 0

    def parcel_done(self, parcel: Parcel) -> None:
        """A value that was replaced waits for nobody any more."""
        if isinstance(parcel, Kept):
            self._given_up -= parcel.nfds < 0
            self._forget_old(parcel)
            parcel.presence.let_go()

    def _check_room(self, topic: str, cost: int, fds: int) -> None:
        before = self.values.get(topic)
        more = (
            ("retained", "topics", self._limits.retained, len(self.values), 0 if before else 1),
            ("retained_bytes", "bytes", self._limits.retained_bytes, self.bytes, cost - (before.cost if before else 0)),
            ("retained_fds", "fds", self._limits.retained_fds, self.fds, fds - (before.nfds if before else 0)),
        )
        for name, what, limit, there, wanted in more:
            if wanted > 0 and there + wanted > limit:
                raise LimitExceeded(
                    f"the value of {topic!r} was neither kept nor delivered: it takes {wanted} more {what} than the "
                    f"{there} kept, and {name} = {limit}; clear a topic with payload None, or raise it with --limit "
                    f"{name}=N at the broker"
                )

    def _retire(self, kept: Kept) -> None:
        if kept.pending > 1:
            self._old[kept] = None
            self.old_bytes += kept.cost
            self.old_fds += kept.nfds
            while self._is_too_much_old():
                oldest = next(iter(self._old))
                self._forget_old(oldest)
                oldest.give_up()
                self._given_up += 1
            if self._given_up > self._limits.retained and self._readers:
                # One at a time, so that it costs no publisher much; a round of them leaves hardly any.
                sink = next(iter(self._readers))
                self._readers.move_to_end(sink)
                if not sink.merge_given_up():
                    del self._readers[sink]
        kept.finish()

    def _is_too_much_old(self) -> bool:
        limits = self._limits
        return (
            len(self._old) > limits.retained
            or self.old_bytes > limits.retained_bytes
            or self.old_fds > limits.retained_fds
        )

    def _forget_old(self, kept: Kept) -> None:
        if kept in self._old:
            del self._old[kept]
            self.old_bytes -= kept.cost
            self.old_fds -= kept.nfds
