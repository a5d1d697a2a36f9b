"""Small credit: used together with what follows it, or after a moment; where that would help nobody, at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from sockbus.broker.coalescing import HOLD_SECONDS, LEAST_CAPACITY, Coalescing
from sockbus.broker.subscription import Subscription
from sockbus.protocol.frame import DELIVER_COUNTS, Kind
from sockbus.protocol.overflow import Overflow
from tests.broker.links import Publisher, Receiver
from tests.broker.raw import Raw
from tests.brokers import BrokerProcess

CAPACITY = 100
PLENTY = 1 << 40


class Clocked:
    """A subscription of ``capacity`` messages, all of them outstanding while more wait, and a clock of its own."""

    def __init__(self, capacity: int = CAPACITY, overflow: Overflow = Overflow.BLOCK, waiting: int = 1000) -> None:
        self.time = 0.0
        self.link = Receiver()
        self.coalescing = Coalescing(lambda: self.time)
        self.subscription = Subscription(self.link, 1, "a", (capacity, PLENTY, PLENTY), strip=False, overflow=overflow)
        self.subscription.offer(Publisher().run(capacity + waiting))
        self._seen = len(self.link.got)

    def credit(self, messages: int) -> int:
        """So much credit comes; how many messages left for it."""
        assert self.subscription.give_back(messages, 0, 0)
        self.coalescing.credit_came(self.subscription)
        return self._left()

    def after(self, seconds: float) -> int:
        """Time passes; how many messages left."""
        self.time += seconds
        self.coalescing.look(self.time)
        return self._left()

    def _left(self) -> int:
        before, self._seen = self._seen, len(self.link.got)
        return self._seen - before


class TestRule:
    def test_small_credit_waits_for_half_of_the_capacity(self) -> None:
        scene = Clocked()
        assert [scene.credit(10) for _ in range(5)] == [0, 0, 0, 0, 50]

    def test_small_credit_alone_is_used_after_a_moment(self) -> None:
        scene = Clocked()
        assert scene.credit(10) == 0
        assert scene.after(HOLD_SECONDS / 2) == 0
        assert scene.credit(1) == 0
        assert scene.after(HOLD_SECONDS / 2) == 11

    def test_time_runs_anew_once_it_was_used(self) -> None:
        scene = Clocked()
        scene.credit(10)
        assert scene.after(HOLD_SECONDS / 2) == 0
        assert scene.credit(40) == 50
        assert scene.credit(10) == 0
        assert scene.after(HOLD_SECONDS / 2) == 0
        assert scene.after(HOLD_SECONDS / 2) == 10

    @pytest.mark.parametrize(
        ("capacity", "overflow", "waiting"),
        [
            (LEAST_CAPACITY - 1, Overflow.BLOCK, 1000),
            (CAPACITY, Overflow.DROP_NEWEST, 1000),
            (CAPACITY, Overflow.BLOCK, 0),
        ],
    )
    def test_nothing_is_held_where_that_would_help_nobody(
        self, capacity: int, overflow: Overflow, waiting: int
    ) -> None:
        scene = Clocked(capacity, overflow, waiting)
        assert scene.credit(1) == min(1, waiting)
        assert scene.after(10 * HOLD_SECONDS) == 0

    def test_held_credit_counts_as_having_moved(self) -> None:
        scene = Clocked()
        waits = scene.link.waits
        scene.credit(1)
        assert scene.link.waits == waits + 1

    def test_one_that_ended_meanwhile_gets_nothing(self) -> None:
        scene = Clocked()
        assert scene.credit(10) == 0
        scene.subscription.close()
        assert scene.after(HOLD_SECONDS) == 0


class TestOverSockets:
    """The same of a broker: what leaves behind one ``DELIVER``."""

    @pytest.fixture
    def peer(self) -> Iterator[Raw]:
        # One record is one read.
        with BrokerProcess() as broker, contextlib.ExitStack() as stack:
            peer, publisher = (stack.enter_context(Raw(broker.address("seqpacket"))) for _ in range(2))
            peer.subscribe("t", credit=(CAPACITY, 1 << 30, 64))
            publisher.send(publisher.frame(Kind.PUBLISH, "t") * (3 * CAPACITY))
            assert first_of(peer, CAPACITY) == CAPACITY
            yield peer

    def test_two_credits_make_one_batch(self, peer: Raw) -> None:
        peer.send(b"".join(peer.control(Kind.CREDIT, [count, 0, 0], correlation=1) for count in (10, 45)))
        assert first_of(peer, 55) == 55

    def test_little_credit_is_used_by_itself(self, peer: Raw) -> None:
        for count in (10, 3):
            peer.send(peer.control(Kind.CREDIT, [count, 0, 0], correlation=1))
            assert first_of(peer, count) == count


def first_of(peer: Raw, messages: int) -> int:
    """Receive so many; how many of them came behind the first ``DELIVER``."""
    batches: list[int] = []
    while messages:
        frame = peer.expect(Kind.DELIVER, Kind.PUBLISH)
        if frame.kind is Kind.DELIVER:
            batches.append(DELIVER_COUNTS.unpack(frame.content)[2])
        else:
            messages -= 1
    return batches[0]
