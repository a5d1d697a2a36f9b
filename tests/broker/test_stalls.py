"""Who is stalled and who is only slow: the rule on a clock of its own, and over real sockets."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sockbus.broker import quiet
from sockbus.broker.group import Group
from sockbus.broker.lossy import Lossy
from sockbus.broker.outlet import Mark
from sockbus.broker.quiet import QuietLog
from sockbus.broker.stalls import NAMED_MEMBERS, WARNING_SECONDS, Stalls
from sockbus.broker.subscription import Subscription
from sockbus.errors import SockbusError
from sockbus.protocol.frame import Flag, Kind
from sockbus.protocol.overflow import Overflow
from tests.broker.links import Publisher, Receiver
from tests.broker.outside import eventually, log_lines
from tests.broker.raw import Raw
from tests.brokers import ROOT, BrokerProcess, environment

TOPIC = "t"


class Link(Receiver):
    """One whose outbox moves when it is told to, and who notes what has ended."""

    def __init__(self, stalls: Stalls) -> None:
        super().__init__()
        self.stalls = stalls
        self.outlet: Any = self
        self.number = 1
        self.account = SimpleNamespace(key="uid 1")
        self.hub.log = QuietLog("sockbus.broker")
        self.moved_at = -math.inf
        self.queued = self.sent = 0
        self.marks: list[Mark] = []
        self.ended_at: list[tuple[float, str]] = []

    def __repr__(self) -> str:
        return "peer 1"

    def place(self, mark: Mark) -> None:
        mark.bytes, mark.moved_at = self.queued, None
        self.marks.append(mark)
        self.move(0)

    def forget(self, mark: Mark) -> None:
        self.marks = [each for each in self.marks if each is not mark]

    def move(self, size: int) -> None:
        """So much leaves."""
        if size:
            self.sent += size
            self.moved_at = self.stalls._now()
        for mark in self.marks:
            if mark.moved_at is None and self.sent >= mark.bytes:
                mark.moved_at = self.moved_at

    def wait(self, subscription: Subscription) -> None:
        self.stalls.watch(self, subscription)  # type: ignore[arg-type]

    def end_subscription(self, subscription: Subscription, error: SockbusError) -> None:
        super().end_subscription(subscription, error)
        self.stalls.forget(subscription)
        self.ended_at.append((self.stalls._now(), str(error)))


class Stage:
    """A clock, and a subscription of one message at a time."""

    def __init__(self, stall: float = 10.0) -> None:
        self.now = 0.0
        self.publisher = Publisher()
        self.link = Link(Stalls(lambda: self.now))
        self.sink: Subscription | Group = self.subscribe(stall)
        self.members: list[Subscription] = []

    def subscribe(self, stall: float, pattern: str = "a.b") -> Subscription:
        return Subscription(self.link, 1, pattern, (1, 1000, 1), strip=False, stall=stall)

    def publish(self, count: int = 2) -> None:
        for _ in range(count):
            self.sink.offer(self.publisher.run(1))

    def credit(self, subscription: Subscription | None = None) -> None:
        (subscription or self.sink).give_back(1, 100, 0)
        self.sink.progress()

    def join(self) -> Subscription:
        """A member of the group that is published to from now on."""
        member = self.subscribe(math.inf)
        if not isinstance(self.sink, Group):
            self.sink = Group("g", "a.b")
        member.group = self.sink
        self.sink.members.append(member)
        return member

    def leave(self, member: Subscription) -> None:
        assert isinstance(self.sink, Group)
        self.link.stalls.forget(member)
        self.sink.members.remove(member)
        self.sink.progress()

    def pass_time(self, seconds: float) -> None:
        """Look whenever it is due."""
        until = self.now + seconds
        due = self.link.stalls._due
        while due and due[0][0] <= until:
            self.now = max(self.now, due[0][0])
            self.link.stalls.look(self.now)
        self.now = until

    @property
    def ended(self) -> bool:
        return isinstance(self.sink, Subscription) and self.sink.ended


class TestClock:
    def test_stall_begins_when_messages_wait_and_ends_it_on_time(self) -> None:
        stage = Stage()
        stage.publish(1)
        stage.pass_time(100)
        assert not stage.ended
        stage.publish(3)
        stage.pass_time(9.99)
        assert not stage.ended
        stage.pass_time(0.01)
        ((when, text),) = stage.link.ended_at
        assert when == 110
        assert text == (
            "the subscription to 'a.b' was ended: no credit came back for stall = 10 s while 3 messages wait and 1 are "
            "outstanding, of a capacity of 1 messages and 1000 bytes; take messages faster, or subscribe with a longer "
            "stall or an overflow that drops"
        )
        assert (stage.sink.lost, stage.link.story) == (3, [(0, 0), (-1, 3)])
        assert len(stage.publisher.done) == 4

    def test_credit_starts_the_time_anew(self) -> None:
        stage = Stage(0.25)
        stage.publish(20)
        for _ in range(18):
            stage.pass_time(0.24)
            stage.credit()
        assert not stage.ended
        stage.pass_time(0.26)
        assert stage.link.ended_at[0][0] == pytest.approx(18 * 0.24 + 0.25)

    def test_credit_that_lets_nothing_start_counts_too(self) -> None:
        stage = Stage()
        stage.sink.offer(stage.publisher.run(1, 5000))
        stage.publish(1)
        for _ in range(40):
            stage.pass_time(9)
            stage.sink.give_back(0, 100, 0)
            stage.sink.progress()
            assert not stage.ended
        stage.pass_time(11)
        assert stage.ended

    @pytest.mark.parametrize(("waiting", "ended"), [(20, False), (21, True)])
    def test_credit_that_is_held_is_used_before_the_end(self, waiting: int, ended: bool) -> None:
        stage = Stage()
        stage.link.hub.now = lambda: stage.now  # type: ignore[method-assign]
        sink = stage.sink = Subscription(stage.link, 1, "a.b", (100, 1 << 20, 1), strip=False, stall=0.001)
        stage.publish(100 + waiting)
        sink.give_back(20, 2000, 0)
        stage.link.hub.coalescing.credit_came(sink)
        assert len(stage.link.got) == 100
        stage.pass_time(1)
        assert (len(stage.link.got), stage.ended) == (120, ended)

    def test_one_that_was_drained_meanwhile_begins_anew(self) -> None:
        stage = Stage()
        stage.publish(2)
        stage.pass_time(9)
        stage.credit()
        stage.credit()
        stage.publish(2)
        stage.pass_time(9.9)
        assert not stage.ended
        stage.pass_time(0.2)
        assert stage.ended

    def test_bytes_of_its_messages_that_leave_start_the_time_anew(self) -> None:
        stage = Stage()
        stage.link.queued = 1000
        stage.publish()
        for _ in range(20):
            stage.pass_time(5)
            stage.link.move(40)
        assert not stage.ended
        stage.pass_time(11)
        assert stage.ended

    @pytest.mark.parametrize(("queued", "end"), [(0, 10.0), (1000, 11.0), (7500, 18.0)])
    def test_bytes_behind_its_messages_do_not(self, queued: int, end: float) -> None:
        """Those of others, that leave every second; what is looked at is when its own last byte left."""
        stage = Stage()
        stage.link.queued = queued
        stage.publish()
        for _ in range(20):
            stage.pass_time(1)
            stage.link.move(1000)
        assert [when for when, _ in stage.link.ended_at] == [end]

    def test_one_with_credit_waits_for_room_as_long_as_its_link_moves(self) -> None:
        stage = Stage()
        stage.link.room = 0
        stage.publish()
        for _ in range(20):
            stage.pass_time(5)
            stage.link.move(1)
        assert not stage.ended
        stage.pass_time(11)
        assert stage.ended

    def test_stall_that_never_comes(self) -> None:
        stage = Stage(math.inf)
        stage.publish()
        stage.pass_time(1e9)
        assert not stage.ended
        assert not stage.link.stalls._due
        assert not stage.link.stalls._clocks

    def test_shortest_stall_ends_it_at_the_next_look(self) -> None:
        stage = Stage(1e-300)
        stage.publish()
        stage.pass_time(0.02)
        assert stage.ended

    def test_those_that_have_ended_leave_nothing_behind(self) -> None:
        stage = Stage()
        for _ in range(1000):
            stage.sink = stage.subscribe(10)
            stage.publish()
            stage.link.stalls.forget(stage.sink)
        assert len(stage.link.stalls._due) < 200
        assert not stage.link.stalls._clocks


class TestWarning:
    def test_log_names_it_once(self, caplog: pytest.LogCaptureFixture) -> None:
        stage = Stage(60)
        stage.publish(10)
        with caplog.at_level(logging.WARNING):
            stage.pass_time(WARNING_SECONDS - 0.1)
            assert caplog.messages == []
            stage.pass_time(0.2)
            (line,) = caplog.messages
            for _ in range(5):
                stage.credit()
                stage.pass_time(20)
        assert caplog.messages == [line]
        assert line == (
            "peer 1 gave no credit back for 5 s on its subscription to 'a.b': 9 messages wait and 1 are outstanding, "
            "of a capacity of 1 messages and 1000 bytes; publishers to it wait. It should take messages faster, or "
            "subscribe with an overflow that drops"
        )

    @pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST])
    def test_log_names_one_that_drops_once(self, overflow: Overflow, caplog: pytest.LogCaptureFixture) -> None:
        stage = Stage()
        stage.sink = Lossy(stage.link, 1, "a.b", (1, 1000, 1), strip=False, overflow=overflow)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                stage.publish(3)
                stage.pass_time(WARNING_SECONDS - 1)
                assert caplog.messages == []
                stage.credit()
            for _ in range(5):
                stage.publish(3)
                stage.pass_time(20)
        (line,) = caplog.messages
        assert line == (
            f"peer 1 gave no credit back for 5 s on its subscription to 'a.b': 1 messages wait and 1 are outstanding, "
            f"of a capacity of 1 messages and 1000 bytes; what its overflow {overflow.value!r} drops meanwhile is lost "
            f"to it. Its program is stopped, or should let its bus run"
        )
        assert not stage.ended
        assert not stage.link.stalls._clocks

    def test_one_that_drops_and_has_nothing_waiting_is_not_named(self, caplog: pytest.LogCaptureFixture) -> None:
        stage = Stage()
        stage.sink = Lossy(stage.link, 1, "a.b", (1, 1000, 1), strip=False, overflow=Overflow.LATEST)
        stage.publish(3)
        stage.credit()
        stage.pass_time(100)
        assert caplog.messages == []

    def test_all_are_named_however_many_there_are(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some by a line of their own, some with what was held back, the others later."""
        stage = Stage()
        monkeypatch.setattr(quiet, "time", SimpleNamespace(monotonic=lambda: stage.now))
        sinks = [stage.subscribe(1000, f"{number:0100}") for number in range(100)]
        for stage.sink in sinks:
            stage.publish(2)
        for _ in range(12):
            stage.pass_time(WARNING_SECONDS)
            stage.link.hub.log.sum_up()
        lines = "\n".join(caplog.messages)
        assert [lines.count(repr(sink.pattern)) for sink in sinks] == [1] * 100
        # Ten lines of their own, and one for the rest, in ten seconds.
        assert len(caplog.messages) < 70


class TestGroup:
    """A group without stall, of members of one message at a time."""

    @pytest.fixture
    def stage(self) -> Stage:
        stage = Stage()
        stage.members = [stage.join() for _ in range(3)]
        return stage

    def test_log_names_it_and_its_members_once(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        stage.publish(10)
        stage.pass_time(WARNING_SECONDS - 0.1)
        assert caplog.messages == []
        stage.pass_time(100)
        (line,) = caplog.messages
        assert line == (
            "the group 'g' on 'a.b' took nothing for 5 s: 7 messages wait and 3 are outstanding at its 3 members, peer "
            "1, peer 1, peer 1; publishers to it wait. They should take messages faster, or more should join them"
        )
        for member in stage.members:
            stage.credit(member)
            stage.pass_time(100)
        stage.leave(stage.members[0])
        stage.pass_time(100)
        assert caplog.messages == [line]
        assert not stage.link.ended_at

    def test_group_of_which_one_member_takes_is_not_named(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        stage.publish(20)
        for _ in range(10):
            stage.pass_time(WARNING_SECONDS - 1)
            stage.credit(stage.members[1])
        assert caplog.messages == []
        stage.pass_time(WARNING_SECONDS)
        assert len(caplog.messages) == 1

    def test_group_is_named_whoever_of_it_has_left(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        stage.publish(20)
        stage.pass_time(WARNING_SECONDS - 1)
        stage.leave(stage.members[0])
        stage.pass_time(WARNING_SECONDS)
        (line,) = caplog.messages
        assert "at its 2 members, peer 1, peer 1;" in line

    def test_of_many_members_the_first_are_named(self, caplog: pytest.LogCaptureFixture) -> None:
        stage = Stage()
        stage.members = [stage.join() for _ in range(NAMED_MEMBERS + 5)]
        stage.publish(100)
        stage.pass_time(WARNING_SECONDS)
        (line,) = caplog.messages
        assert line.count("peer 1") == NAMED_MEMBERS
        assert "peer 1 and 5 more; publishers" in line


class TestSockets:
    def test_ended_subscription_keeps_its_number_until_it_is_left(self) -> None:
        with (
            BrokerProcess("--limit", "subscriptions=1") as broker,
            Raw(broker.stream) as peer,
            Raw(broker.stream) as other,
        ):
            peer.subscribe(TOPIC, credit=(1, 100, 1), stall=0.1)
            other.send(other.frame(Kind.PUBLISH, TOPIC) * 3)
            other.send(other.frame(Kind.PUBLISH, TOPIC, correlation=5, flags=Flag.RECEIPT))
            assert peer.expect(Kind.DELIVER).body == [1, 0]
            assert peer.expect(Kind.DELIVER).body == [0, 3]
            error = peer.expect(Kind.ERROR)
            assert (error.correlation, error.body["code"]) == (1, "stalled")
            assert other.expect(Kind.RECEIPT).body == [1, 0, 1, 0]
            # Credit that crossed the ERROR is ignored, and so is what would be too much.
            peer.send(peer.control(Kind.CREDIT, [1, 1 << 40, 0], correlation=1))
            other.send(other.frame(Kind.PUBLISH, TOPIC, correlation=7, flags=Flag.RECEIPT))
            assert other.expect(Kind.RECEIPT).body == [0, 0, 0, 0]
            peer.send(peer.control(Kind.UNSUBSCRIBE, correlation=1))
            assert peer.expect(Kind.OK).correlation == 1
            peer.subscribe(TOPIC, 3)
            peer.send(peer.subscription(TOPIC, 5))
            assert peer.expect(Kind.ERROR).body["code"] == "limit"

    def test_log_names_all_that_stall_whatever_else_their_user_does(self) -> None:
        patterns = [f"topic.{number}" for number in range(25)]
        with BrokerProcess() as broker, Raw(broker.stream) as peer, Raw(broker.stream) as other:
            for _ in range(2 * quiet.BURST):
                with Raw(broker.stream, greet=False) as wrong:
                    wrong.send(b"garbage")
                    wrong.until_end()
            for number, pattern in enumerate(patterns):
                peer.subscribe(pattern, 2 * number + 1, (1, 1, 1), stall=0.1)
                other.send(other.frame(Kind.PUBLISH, pattern) * 2)
            for _ in patterns:
                assert peer.expect(Kind.ERROR).body["code"] == "stalled"
            broker.stop()
            assert [sum(f"'{pattern}'" in line for line in log_lines(broker)) for pattern in patterns] == [1] * 25
            assert f"uid {os.getuid()}, ended subscriptions: " in broker.log

    def test_reader_that_takes_little_by_little_is_not_stalled(self) -> None:
        """It gives no credit until all is here, which takes many times its stall."""
        messages = 200
        with BrokerProcess() as broker, Raw(broker.stream) as peer, Raw(broker.stream) as other:
            peer.subscribe(TOPIC, credit=(messages, 1 << 40, 1), stall=0.4)
            for number in range(messages):
                other.send(other.frame(Kind.PUBLISH, TOPIC, bytes(60_000)))
                if number % 10 == 9:
                    other.settle()
            other.send(other.frame(Kind.PUBLISH, TOPIC))
            began = time.monotonic()
            for _ in range(messages):
                peer.expect(Kind.PUBLISH)
                time.sleep(0.01)
            assert time.monotonic() - began > 1.2
            size = 60_000 + 26 + len(TOPIC)
            peer.send(peer.control(Kind.CREDIT, [messages, messages * size, 0], correlation=1))
            assert peer.expect(Kind.PUBLISH, Kind.ERROR).kind is Kind.PUBLISH

    def test_log_names_groups_and_those_that_drop_too(self, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(
            "import sockbus.broker.stalls\nsockbus.broker.stalls.WARNING_SECONDS = 0.1\n"
        )
        with (
            BrokerProcess(env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}")) as broker,
            Raw(broker.stream) as peer,
            Raw(broker.stream) as other,
        ):
            peer.subscribe("one", 1, (1, 1, 1), stall=math.inf)
            peer.subscribe("shared", 3, (1, 1, 1), group="g")
            peer.subscribe("kept", 5, (1, 1, 1), overflow="latest")
            for topic in ("one", "shared", "kept"):
                other.send(other.frame(Kind.PUBLISH, topic) * 3)
            eventually(lambda: len(log_lines(broker)) == 3)
            name = f"peer {peer.number} (stream, uid {os.getuid()})"
            lines = "\n".join(log_lines(broker))
            assert f"{name} gave no credit back for 0.1 s on its subscription to 'one': 2 messages wait" in lines
            assert f"{name} gave no credit back for 0.1 s on its subscription to 'kept': 1 messages wait" in lines
            assert "the group 'g' on 'shared' took nothing for 0.1 s: 2 messages wait" in lines
            assert f"at its 1 members, {name}; publishers to it wait" in lines
