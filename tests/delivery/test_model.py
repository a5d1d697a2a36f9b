"""Any sequence of connecting, subscribing, publishing, taking, pausing, leaving and killing the broker, and a model.

While a broker lives, the model says what each ``take`` gives, to the message and to the count. What a killed broker may
have swallowed is left to the checker of ``benchmarks.endurance``, which judges the whole in the end. The buses are
those without an event loop: they do nothing between two calls, so a bus that is *paused* reads nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from benchmarks.endurance.checker import check
from benchmarks.endurance.history import history_of, matches
from benchmarks.endurance.record import Event
from sockbus import BusState, ConnectionLost, Message, Receipt, SockbusError, SubscriptionStalled
from sockbus.blocking import connect
from tests.brokers import BrokerProcess
from tests.delivery.model import Expected

POLICIES = ["block", "drop_oldest", "drop_newest", "latest", "disconnect"]
PATTERNS = [">", "t.>", "t.a", "t.*"]
TOPICS = ["t.a", "t.b", "t.c"]
CAPACITY = 4
BUSES = 3
SUBSCRIPTIONS = 5
KILLS = 2
#: seconds after which what must come about has not
PATIENCE = 20.0
#: seconds without a message after which the broker is asked whether there is one
MOMENT = 0.02


class Side:
    """A program's bus, and what it has published."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.stack = ExitStack()
        self.bus: Any = self.stack.enter_context(connect(address))
        self.number = -1
        self.in_doubt = 0
        self.is_paused = False
        self.is_exact = False


class Taker:
    """A subscription, and what it is to get."""

    def __init__(self, name: str, side: Side, pattern: str, expected: Expected) -> None:
        self.name = name
        self.side = side
        self.pattern = pattern
        self.expected = expected
        self.stack = ExitStack()
        self.messages: Any = None


class Machine(RuleBasedStateMachine):
    """One example; the broker is that of all examples of a transport, and runs when one begins and when it ends."""

    broker: BrokerProcess
    address: str

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.sides: list[Side] = []
        self.takers: list[Taker] = []
        self.kept: dict[str, tuple[str, int]] = {}
        self.kills = self.count = 0
        self.is_up = True
        self.prefix = f"x{time.monotonic_ns()}"

    # What is written down

    def note(self, event: str, **what: Any) -> None:
        self.events.append({"event": event, "at": time.monotonic_ns(), **what})

    def look(self, side: Side) -> None:
        if side.bus.in_doubt != side.in_doubt:
            side.in_doubt = side.bus.in_doubt
            self.note("interrupted", publisher=side.name, number=side.number, in_doubt=side.in_doubt)

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    # Waiting until what was done has come about

    def rows(self, side: Side) -> dict[str, Any]:
        """The subscriptions that the broker knows of a bus, once it has seen all that was sent by that."""
        found = side.bus.request("$SYS.status", timeout=PATIENCE).payload
        return {row["pattern"]: row for row in found["subscriptions"] if row["peer"] == side.bus.peer.id}

    def settle(self) -> None:
        """Everything that can come to those who are not paused has come."""
        for side in self.sides:
            takers = [taker for taker in self.takers if taker.side is side and taker.expected.overflow != "block"]
            deadline = time.monotonic() + PATIENCE
            while not side.is_paused and takers:
                rows = self.rows(side)
                takers = [taker for taker in takers if not self.is_settled(taker, rows.get(self.full(taker.pattern)))]
                assert time.monotonic() < deadline, [(each.expected.__dict__, each.messages.lost) for each in takers]

    def is_settled(self, taker: Taker, row: dict[str, Any] | None) -> bool:
        expected = taker.expected
        if expected.is_over:
            return row is None
        # A page that took long to make may be of a moment ago; that there is a row is waited for as the rest is.
        return row is not None and row["waiting"] == row["outstanding"] == 0 and taker.messages.lost == expected.lost

    def full(self, pattern: str) -> str:
        return f"{self.prefix}.{pattern}"

    def matching(self, topic: str) -> list[Taker]:
        return [taker for taker in self.takers if matches(self.full(taker.pattern), topic)]

    # The rules

    def running(self) -> list[Side]:
        return [side for side in self.sides if not side.is_paused]

    def readers(self) -> list[Taker]:
        return [taker for taker in self.takers if not taker.side.is_paused]

    @initialize(data=st.data(), overflows=st.lists(st.sampled_from(POLICIES), min_size=2, max_size=3))
    def begin(self, data: st.DataObject, overflows: list[str]) -> None:
        """Something to do anything with."""
        self.sides += [Side(self.name("p"), self.address) for _ in range(2)]
        for overflow in overflows:
            self.subscribe_with(data.draw(st.sampled_from(self.sides)), overflow, data.draw(st.sampled_from(PATTERNS)))

    @precondition(lambda self: self.is_up and len(self.sides) < BUSES)
    @rule()
    def connect(self) -> None:
        self.sides.append(Side(self.name("p"), self.address))

    @precondition(lambda self: self.is_up and self.running() and len(self.takers) < SUBSCRIPTIONS)
    @rule(data=st.data(), overflow=st.sampled_from(POLICIES), pattern=st.sampled_from(PATTERNS))
    def subscribe(self, data: st.DataObject, overflow: str, pattern: str) -> None:
        self.subscribe_with(data.draw(st.sampled_from(self.running())), overflow, pattern)

    def subscribe_with(self, side: Side, overflow: str, pattern: str) -> None:
        if any(taker.side is side and taker.pattern == pattern for taker in self.takers):
            return
        taker = Taker(self.name("s"), side, pattern, Expected(overflow, CAPACITY))
        self.note("subscribe", subscription=taker.name, pattern=self.full(pattern), overflow=overflow)
        subscription = side.bus.subscribe(self.full(pattern), overflow=overflow, capacity=CAPACITY)
        taker.messages = taker.stack.enter_context(subscription)
        self.note("in force", subscription=taker.name)
        kept = {key for topic, key in self.kept.items() if matches(self.full(pattern), topic)}
        came = [self.receive(taker) for _ in kept]
        assert {(message.payload[0], message.payload[1]) for message in came} == kept
        assert all(message.retained and not message.lost and not message.interrupted for message in came)
        self.takers.append(taker)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), topics=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=12))
    def publish(self, data: st.DataObject, topics: list[str]) -> None:
        side = data.draw(st.sampled_from(self.running()))
        for topic in topics:
            self.one(side, self.full(topic))
        if self.is_up:
            # So that what others publish after this comes after it.
            self.rows(side)

    def can_be_waited_for(self) -> bool:
        return self.is_up and bool(self.sides) and all(
            taker.expected.has_room and not taker.side.is_paused for taker in self.takers
        )  # fmt: skip

    @precondition(lambda self: self.can_be_waited_for())
    @rule(data=st.data(), topic=st.sampled_from(TOPICS), retain=st.booleans())
    def publish_and_wait(self, data: st.DataObject, topic: str, retain: bool) -> None:
        side = data.draw(st.sampled_from(self.sides))
        self.settle()
        topic = self.full(f"kept.{side.name}" if retain else topic)
        matched = sum(not taker.expected.is_over for taker in self.matching(topic))
        receipt = self.one(side, topic, receipt=True, retain=retain)
        assert receipt == Receipt(matched, matched, 0, 0)
        if retain:
            self.kept[topic] = (side.name, side.number)

    def one(self, side: Side, topic: str, **how: bool) -> Any:
        side.number += 1
        self.note("begin", publisher=side.name, number=side.number, topic=topic, retain=how.get("retain", False))
        answer = side.bus.publish(topic, [side.name, side.number], **how, timeout=PATIENCE)
        counts = answer and [answer.matched, answer.delivered, answer.dropped, answer.without_fds]
        self.note("done", publisher=side.name, number=side.number, receipt=counts)
        self.look(side)
        if self.is_up:
            for taker in self.matching(topic):
                taker.expected.push((side.name, side.number), topic)
        return answer

    @precondition(lambda self: self.is_up and any(taker.expected.queue for taker in self.readers()))
    @rule(data=st.data(), count=st.integers(1, 6))
    def take(self, data: st.DataObject, count: int) -> None:
        self.settle()
        taker = data.draw(st.sampled_from([taker for taker in self.readers() if taker.expected.queue]))
        for _ in range(min(count, len(taker.expected.queue))):
            self.take_expected(taker, self.receive(taker))

    def take_expected(self, taker: Taker, message: Message) -> None:
        key, lost, is_cut = taker.expected.take()
        assert (*message.payload, message.interrupted, message.retained) == (*key, is_cut, False)
        assert lost is None or message.lost == lost

    def receive(self, taker: Taker, timeout: float | None = None) -> Message:
        message: Message = taker.messages.receive(timeout=PATIENCE if timeout is None else timeout)
        publisher, number = message.payload
        self.note(
            "take", subscription=taker.name, publisher=publisher, number=number, topic=message.topic,
            lost=message.lost, interrupted=message.interrupted, retained=message.retained,
        )  # fmt: skip
        return message

    @precondition(lambda self: self.is_up and self.running())
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.running())).is_paused = True

    @precondition(lambda self: any(side.is_paused for side in self.sides))
    @rule()
    def resume(self) -> None:
        for side in self.sides:
            side.is_paused = False

    @precondition(lambda self: self.can_be_waited_for())
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        """Also those that were ended by their policy: they end with why."""
        side = data.draw(st.sampled_from(self.sides))
        self.settle()
        self.drain_side(side)

    def drain_side(self, side: Side) -> None:
        mine = [taker for taker in self.takers if taker.side is side]
        for taker in mine:
            self.note("drain", subscription=taker.name)
        side.bus.drain(timeout=PATIENCE)
        self.note("confirmed", publisher=side.name, number=side.number)
        for taker in mine:
            self.finish(taker)

    def finish(self, taker: Taker) -> None:
        expected = taker.expected
        for _ in range(len(expected.queue)):
            self.take_expected(taker, self.receive(taker))
        with pytest.raises(SubscriptionStalled if expected.is_over else ConnectionLost):
            self.receive(taker)
        if not expected.is_over:
            assert taker.messages.lost == expected.lost
        self.drop(taker, "stalled" if expected.is_over else "drained")

    def drop(self, taker: Taker, how: str) -> None:
        totals = {"lost": taker.messages.lost, "interrupted": taker.messages.interrupted}
        self.note("end", subscription=taker.name, how=how, **totals)
        self.takers.remove(taker)
        taker.stack.close()

    @precondition(lambda self: self.is_up and self.readers())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        taker = data.draw(st.sampled_from(self.readers()))
        self.drop(taker, "left")
        # So that the broker knows, before anybody else does anything.
        self.rows(taker.side)

    @precondition(lambda self: self.is_up and self.takers and self.kills < KILLS)
    @rule(is_settled=st.booleans())
    def kill(self, is_settled: bool) -> None:
        self.kills += 1
        if is_settled:
            self.settle()
        for side in self.sides:
            # Else nobody knows what of it has come.
            side.is_exact = is_settled and not side.is_paused
        self.note("down")
        self.broker.kill()
        self.note("down")
        self.is_up = False
        self.kept.clear()

    @precondition(lambda self: not self.is_up)
    @rule()
    def restart(self) -> None:
        """What had come before is taken first, then what was published meanwhile; from there on the model knows."""
        self.broker.start()
        self.is_up = True
        for side in self.sides:
            side.is_paused = False
            deadline = time.monotonic() + PATIENCE
            while side.bus.in_doubt == side.in_doubt and side.bus.state is BusState.CONNECTED:
                # It has not noticed.
                try:
                    self.rows(side)
                    break
                except ConnectionLost:
                    assert time.monotonic() < deadline
            while side.bus.state is not BusState.CONNECTED:
                side.bus.state_changed(timeout=PATIENCE)
            self.look(side)
            for taker in self.takers:
                if taker.side is side:
                    self.note("in force", subscription=taker.name)
        for side in self.sides:
            self.rows(side)
        for taker in list(self.takers):
            self.take_all(taker)

    def take_all(self, taker: Taker) -> None:
        deadline = time.monotonic() + PATIENCE
        before = [entry.key for entry in taker.expected.queue]
        came: list[Message] = []
        while True:
            try:
                came.append(self.receive(taker, MOMENT))
            except TimeoutError:
                row = self.rows(taker.side).get(self.full(taker.pattern))
                if row is not None and row["waiting"] == row["outstanding"] == 0:
                    break
                assert time.monotonic() < deadline
            except SubscriptionStalled:
                self.drop(taker, "stalled")
                return
        keys = [(message.payload[0], message.payload[1]) for message in came]
        told = [index for index, message in enumerate(came) if message.interrupted]
        # The first may tell of an interruption before this one.
        assert len(told) <= 1 + taker.expected.is_cut
        is_told = bool(told) and keys[told[-1]] not in taker.expected.published
        old = keys[: told[-1]] if is_told else keys
        if taker.expected.overflow == "block":
            assert old == before[: len(old)]
        elif taker.side.is_exact:
            # What is newer may have taken the place of some of it.
            assert old == [key for key in before if key in old]
        taker.expected.cut(taker.messages.lost, is_told=is_told)

    def teardown(self) -> None:
        # Also an example that Hypothesis has given up.
        is_failed = sys.exc_info()[0] is not None
        with ExitStack() as stack:
            if is_failed:
                stack.enter_context(contextlib.suppress(SockbusError, TimeoutError))
            for each in (*self.sides, *self.takers):
                stack.enter_context(each.stack)
            if not self.is_up:
                self.broker.start() if is_failed else self.restart()
            if not is_failed:
                self.finish_all()
                assert check(history_of([self.events])) == []

    def finish_all(self) -> None:
        for side in self.sides:
            side.is_paused = False
        self.settle()
        while any(taker.expected.queue for taker in self.takers):
            for taker in self.takers:
                for _ in range(min(CAPACITY, len(taker.expected.queue))):
                    self.take_expected(taker, self.receive(taker))
        for side in self.sides:
            self.drain_side(side)


@pytest.fixture(params=["seqpacket", "stream", "tcp"])
def machine(request: pytest.FixtureRequest) -> Iterator[type[Machine]]:
    with BrokerProcess() as running:

        class OfTransport(Machine):
            broker = running
            address = running.address(request.param)

        yield OfTransport
        if running.process is None:
            running.start()


def test_promises_hold_beside_a_model(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            # Each example takes a second: a smaller one, others, or those of earlier runs are not worth minutes.
            phases=[Phase.generate],
            report_multiple_bugs=False,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
