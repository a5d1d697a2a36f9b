"""Small credit: used together with what follows it, or after a moment; where that would help nobody, at once."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from sockbus.broker import coalescing
from sockbus.broker.coalescing import ENOUGH, HOLD_SECONDS, LEAST_CAPACITY
from sockbus.broker.lossy import Lossy
from sockbus.broker.subscription import Subscription
from sockbus.protocol.frame import DELIVER_COUNTS, Kind
from sockbus.protocol.overflow import Overflow
from tests.broker.links import Publisher, Receiver
from tests.broker.raw import Raw
from tests.brokers import ROOT, BrokerProcess, environment

CAPACITY = 100
PLENTY = 1 << 40


class Scene:
    """Subscriptions of ``capacity`` messages, all of them outstanding while more wait, and a clock that is set."""

    def __init__(
        self,
        capacity: int = CAPACITY,
        overflow: Overflow = Overflow.BLOCK,
        *,
        waiting: int = 1000,
        is_local: bool = True,
        subscriptions: int = 1,
    ) -> None:
        self.time = 0.0
        self.link = Receiver()
        self.link.is_local = is_local
        self.hub = self.link.hub
        self.hub.now = lambda: self.time  # type: ignore[method-assign]
        self.coalescing = self.hub.coalescing
        credit = (capacity, PLENTY, PLENTY)
        self.subscriptions = [
            Subscription(self.link, 1, "a", credit, strip=False)
            if overflow is Overflow.BLOCK
            else Lossy(self.link, 1, "a", credit, strip=False, overflow=overflow)
            for _ in range(subscriptions)
        ]
        for subscription in self.subscriptions:
            subscription.offer(Publisher().run(capacity + waiting))
        self._seen = len(self.link.got)

    def credit(self, messages: int, number: int = 0) -> int:
        """So much credit comes; how many messages left for it."""
        assert self.subscriptions[number].give_back(messages, 0, 0)
        self.coalescing.credit_came(self.subscriptions[number])
        return self.left()

    def after(self, seconds: float) -> int:
        """Time passes; how many messages left."""
        self.time += seconds
        while self.coalescing.turn(self.time):
            continue
        return self.left()

    def left(self) -> int:
        """How many messages have left since the last look."""
        before, self._seen = self._seen, len(self.link.got)
        return self._seen - before


class TestRule:
    def test_small_credit_waits_for_half_of_the_capacity(self) -> None:
        scene = Scene()
        assert [scene.credit(10) for _ in range(5)] == [0, 0, 0, 0, 50]

    def test_what_is_enough_waits_for_no_more_however_large_the_capacity(self) -> None:
        scene = Scene(100 * ENOUGH)
        assert [scene.credit(ENOUGH - 1), scene.credit(1)] == [0, ENOUGH]

    def test_small_credit_alone_is_used_after_a_moment(self) -> None:
        scene = Scene()
        assert scene.credit(10) == 0
        assert scene.after(HOLD_SECONDS / 2) == 0
        assert scene.credit(1) == 0
        assert scene.after(HOLD_SECONDS / 2) == 11

    def test_time_runs_anew_once_it_was_used(self) -> None:
        scene = Scene()
        scene.credit(10)
        assert scene.after(HOLD_SECONDS / 2) == 0
        assert scene.credit(40) == 50
        assert scene.credit(10) == 0
        assert scene.after(HOLD_SECONDS / 2) == 0
        assert scene.after(HOLD_SECONDS / 2) == 10

    @pytest.mark.parametrize(("capacity", "used"), [(LEAST_CAPACITY - 1, 1), (LEAST_CAPACITY, 0)])
    def test_batches_of_a_small_capacity_are_small_at_any_rate(self, capacity: int, used: int) -> None:
        assert Scene(capacity).credit(1) == used

    def test_what_waits_for_another_host_may_be_on_the_wire(self) -> None:
        assert Scene(is_local=False).credit(1) == 1

    @pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
    def test_what_may_be_dropped_does_not_wait(self, overflow: Overflow) -> None:
        assert Scene(overflow=overflow).credit(1) == 1

    def test_where_nothing_waits_nothing_is_held(self) -> None:
        scene = Scene(waiting=0)
        scene.credit(1)
        assert not scene.coalescing.use(scene.subscriptions[0])

    def test_held_credit_counts_as_having_come(self) -> None:
        scene = Scene()
        waits = scene.link.waits
        scene.credit(1)
        assert scene.link.waits == waits + 1

    def test_one_that_ended_meanwhile_gets_nothing(self) -> None:
        scene = Scene()
        assert scene.credit(10) == 0
        scene.subscriptions[0].close()
        assert scene.after(HOLD_SECONDS) == 0

    def test_fault_of_the_broker_costs_one_link_alone(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        scene, whole = Scene(subscriptions=2), Subscription.take
        faults = iter([RuntimeError("a fault")])

        def take(self: Subscription, *arguments: object) -> object:
            for fault in faults:
                raise fault
            return whole(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Subscription, "take", take)
        assert [scene.credit(10, number) for number in range(2)] == [0, 0]
        assert scene.after(HOLD_SECONDS) == 10
        assert scene.link.ends == ["the broker met a fault of its own; see its log"]
        assert [(record.levelno, record.exc_info is not None) for record in caplog.records] == [(logging.ERROR, True)]


class TestRunning:
    """The clock, on Trio's."""

    async def test_moment_is_short_and_nobody_wakes_up_without_need(
        self, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
    ) -> None:
        scene = Scene()
        scene.hub.now = trio.current_time  # type: ignore[method-assign]
        nursery.start_soon(scene.coalescing.run, scene.hub.settle)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
            assert scene.credit(10) == 0
            for seconds in (HOLD_SECONDS * 0.9, HOLD_SECONDS * 1.2):
                await trio.testing.wait_all_tasks_blocked()
                assert scene.left() == 0
                mock_clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()
            assert scene.left() == 10

    async def test_others_run_between_two_turns(
        self, nursery: trio.Nursery, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(coalescing, "TURN_SECONDS", -1.0)
        scene, left = Scene(subscriptions=3), []
        scene.hub.now = trio.current_time  # type: ignore[method-assign]
        for number in range(3):
            scene.credit(10, number)
        nursery.start_soon(scene.coalescing.run, lambda: left.append(scene.left()))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(HOLD_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert [count for count in left if count] == [10, 10, 10]


class TestOverSockets:
    """The same of a broker: what leaves behind one ``DELIVER``."""

    @pytest.mark.parametrize(("transport", "first"), [("seqpacket", 55), ("stream", 55), ("tcp", 10)])
    def test_two_credits_make_one_batch_on_this_machine(self, transport: str, first: int, tmp_path: Path) -> None:
        # However slow it is.
        (tmp_path / "sitecustomize.py").write_text(
            "import sockbus.broker.coalescing\nsockbus.broker.coalescing.HOLD_SECONDS = 1000\n"
        )
        with outstanding(transport, environment(PYTHONPATH=f"{tmp_path}:{ROOT}")) as peer:
            for count in (10, 45):
                peer.send(peer.control(Kind.CREDIT, [count, 0, 0], correlation=1))
            assert first_of(peer, 55) == first

    def test_little_credit_is_used_by_itself(self, transport: str) -> None:
        with outstanding(transport) as peer:
            for count in (10, 3):
                peer.send(peer.control(Kind.CREDIT, [count, 0, 0], correlation=1))
                assert first_of(peer, count) == count


@contextlib.contextmanager
def outstanding(transport: str, env: dict[str, str] | None = None) -> Iterator[Raw]:
    """A peer to which its whole capacity was delivered, while twice that waits."""
    with BrokerProcess(env=env) as broker, contextlib.ExitStack() as stack:
        peer, publisher = (stack.enter_context(Raw(broker.address(transport))) for _ in range(2))
        peer.subscribe("t", credit=(CAPACITY, 1 << 30, 64))
        publisher.send(publisher.frame(Kind.PUBLISH, "t") * (3 * CAPACITY))
        first_of(peer, CAPACITY)
        yield peer


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
