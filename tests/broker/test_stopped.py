"""A subscriber stopped under load, for each policy: nobody else waits, and every message is counted."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sockbus import Receipt
from sockbus.blocking import Bus, connect
from sockbus.protocol.frame import Flag, Kind
from tests.broker.outside import eventually, resident_bytes
from tests.broker.raw import Raw, pieced
from tests.brokers import BrokerProcess, Program

MIB = 1 << 20
TRANSPORTS = ["seqpacket", "stream", "tcp"]
DROPPING = ["drop_oldest", "drop_newest", "latest"]


@contextlib.contextmanager
def counting(
    broker: BrokerProcess, transport: str, overflow: str, capacity: int = 100, stall: str = "inf"
) -> Iterator[Program]:
    """One that has subscribed to ``numbers.>``; it is continued at the end."""
    program = [sys.executable, "-m", "tests.broker.counting", broker.address(transport), "numbers.>", overflow]
    with Program([*program, str(capacity), stall]) as running:
        assert running.out.next() == "ready"
        try:
            yield running
        finally:
            running.signal(signal.SIGCONT)


def told(program: Program) -> tuple[int, int, int, Any, str]:
    received, gaps, lost, wrong, why = json.loads(program.out.next())
    return received, gaps, lost, wrong, why


def row(bus: Bus) -> dict[str, Any]:
    """The subscription in the broker's status; empty when it is not there."""
    page = bus.request("$SYS.status").payload
    rows = [found for found in page["subscriptions"] if found["pattern"] == "numbers.>"]
    return rows[0] if rows else {}


def publish(bus: Bus, count: int, start: int = 0, size: int = 0) -> int:
    with bus.batch():
        for number in range(start, start + count):
            bus.publish(f"numbers.{'abc'[number % 3]}", number)
    return start + count


def publish_until(bus: Bus, start: int) -> int:
    """Numbers until some are dropped at the broker; the next number."""
    while not row(bus)["lost"]:
        start = publish(bus, 2000, start)
    return publish(bus, 5000, start)


def end(bus: Bus, program: Program) -> tuple[int, int, int, Any, str]:
    """What it tells once it has read all that was for it."""
    program.signal(signal.SIGCONT)
    eventually(lambda: row(bus)["waiting"] == 0 and row(bus)["outstanding"] == 0)
    bus.publish("numbers.end", "end", receipt=True)
    return told(program)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("overflow", DROPPING)
def test_stopped_subscriber_loses_and_reads_exactly_how_much(
    overflow: str, transport: str, common: BrokerProcess
) -> None:
    with counting(common, transport, overflow) as program, connect(common.stream) as bus:
        published = publish(bus, 500)
        bus.flush()
        program.signal(signal.SIGSTOP)
        published = publish_until(bus, published)
        bus.flush(timeout=20)
        found = row(bus)
        assert found["overflow"] == overflow
        assert found["stall"] is None
        assert found["waiting"] == (3 if overflow == "latest" else 100)
        received, gaps, lost, wrong, why = end(bus, program)
        assert (received + lost, wrong, why) == (published, [], "end")
        assert gaps == lost >= found["lost"]


@pytest.mark.parametrize("overflow", DROPPING)
def test_stopped_subscriber_reads_its_losses_also_when_nothing_more_comes(overflow: str, common: BrokerProcess) -> None:
    """drop_newest: what is behind the last message is told by itself."""
    with counting(common, "stream", overflow) as program, connect(common.stream) as bus:
        program.signal(signal.SIGSTOP)
        published = publish_until(bus, 0)
        bus.flush(timeout=20)
        program.signal(signal.SIGCONT)
        eventually(lambda: row(bus)["waiting"] == 0 and row(bus)["outstanding"] == 0)
        lost = row(bus)["lost"]
        bus.publish("numbers.end", "end", receipt=True)
        received, gaps, told_lost, wrong, _ = told(program)
        assert (wrong, told_lost >= lost) == ([], True)
        assert received + gaps == received + told_lost == published


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stopped_subscriber_with_disconnect_is_ended_at_its_capacity(transport: str, common: BrokerProcess) -> None:
    with counting(common, transport, "disconnect") as program, connect(common.stream) as bus:
        program.signal(signal.SIGSTOP)
        assert [bus.publish("numbers.a", number, receipt=number % 7 == 0) for number in range(100)]
        published = publish(bus, 100, 100)
        receipts = []
        while row(bus):
            receipts.append(bus.publish("numbers.a", published, receipt=True))
            published += 1
        assert receipts[-1] == Receipt(1, 0, 1, 0)
        assert bus.publish("numbers.a", "nobody", receipt=True) == Receipt(0, 0, 0, 0)
        program.signal(signal.SIGCONT)
        received, gaps, lost, wrong, why = told(program)
        assert (received + lost, wrong) == (published, [])
        assert lost - gaps > 0  # behind the last message that came
        assert "overflow is 'disconnect'" in why
        assert "'numbers.>'" in why


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stopped_subscriber_that_blocks_is_ended_by_its_stall(transport: str) -> None:
    with (
        BrokerProcess() as broker,
        counting(broker, transport, "block", stall="1.5") as program,
        connect(broker.stream) as bus,
        connect(broker.stream) as other,
        other.subscribe("other.>") as taken,
    ):
        program.signal(signal.SIGSTOP)
        published = publish(bus, 100)
        bus.flush()
        began = time.monotonic()
        published = publish(bus, 2000, published)
        receipt = bus.publish("numbers.a", published, receipt=True, timeout=20)
        took = time.monotonic() - began
        assert receipt == Receipt(1, 0, 1, 0)
        assert 1.4 < took < 10
        assert row(bus) == {}
        # Its link goes on, and whoever published to it.
        bus.publish("other.a", 1)
        assert taken.receive(timeout=20).payload == 1
        page = bus.request("$SYS.status").payload
        assert page["totals"]["stalled"] == 1
        assert len(page["peers"]) == 3
        program.signal(signal.SIGCONT)
        received, gaps, lost, wrong, why = told(program)
        assert (received, gaps, lost, wrong) == (100, 0, published + 1 - 100, [])
        assert "stall = 1.5 s" in why
        assert "'numbers.>'" in why
        assert [line.count("stall = 1.5 s") for line in broker.log.splitlines()] == [1]


def test_publisher_to_two_topics_waits_for_neither_but_the_stopped_one() -> None:
    """Until its window is spent, and then until the stall ends it; its requests pass throughout."""
    with (
        BrokerProcess() as broker,
        counting(broker, "stream", "block", stall="3") as program,
        connect(broker.stream) as bus,
        connect(broker.stream) as other,
        other.subscribe("read") as read,
    ):
        program.signal(signal.SIGSTOP)
        publish(bus, 100)
        number = 100
        for number in range(100, 4000):
            bus.publish("numbers.a", number)
            bus.publish("read", number, timeout=20)
            assert read.receive(timeout=20).payload == number
        assert row(bus)["waiting"] == 3900
        began = time.monotonic()
        with bus.batch():
            while row(bus):
                bus.publish("numbers.b", bytes(10_000), timeout=20)
        bus.publish("read", "on")
        assert read.receive(timeout=20).payload == "on"
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("overflow", [*DROPPING, "block"])
def test_unread_flood_does_not_grow_the_broker(overflow: str) -> None:
    with (
        BrokerProcess() as broker,
        counting(broker, "stream", overflow, capacity=1000) as program,
        connect(broker.stream) as bus,
    ):
        program.signal(signal.SIGSTOP)
        publish(bus, 1000)
        bus.flush()
        before = resident_bytes(broker)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 300 * MIB:
                with bus.batch():
                    for _ in range(1000):
                        bus.publish("numbers.a", bytes(1000), timeout=1)
                sent += 1_000_000
        grown = resident_bytes(broker) - before
        queued = bus.request("$SYS.status").payload["queues"]["bytes"]
        program.signal(signal.SIGCONT)
        assert (grown < 24 * MIB, queued < 12 * MIB) == (True, True)
        assert (sent < 4 * MIB) is (overflow == "block")


def with_receipt(peer: Raw, number: int) -> bytes:
    return peer.frame(Kind.PUBLISH, "small", b"\x01", number, flags=Flag.RECEIPT)


def in_pieces(peer: Raw, number: int) -> bytes:
    first = peer.frame(Kind.PUBLISH, "small", pieced(17, b"\xb0"), number, flags=Flag.PIECED)
    return first + 16 * peer.frame(Kind.PIECE, payload=b"x", correlation=number)


@pytest.mark.parametrize(("small", "count"), [(with_receipt, 30_000), (in_pieces, 15_000)])
def test_small_messages_that_wait_take_no_more_memory_than_is_accounted_for(
    small: Callable[[Raw, int], bytes], count: int
) -> None:
    """Nearly a window of them, each of which takes many times its bytes."""
    with BrokerProcess() as broker, Raw(broker.stream) as reader, Raw(broker.stream) as peer:
        reader.subscribe("small", credit=(1, 1 << 40, 1), stall=1000)
        peer.send(b"".join(small(peer, number) for number in range(1, 200, 2)))
        before = peer.request("$SYS.status")["queues"]["bytes"], resident_bytes(broker)
        for start in range(200, count, 500):
            peer.send(b"".join(small(peer, 2 * number + 1) for number in range(start, start + 500)))
        queued = peer.request("$SYS.status")["queues"]["bytes"] - before[0]
        assert queued > 300 * (count - 1000)
        assert resident_bytes(broker) - before[1] < 1.2 * queued + 2 * MIB
        # Nothing of it stays when the reader goes.
        reader.close()
        eventually(lambda: peer.request("$SYS.status")["queues"]["bytes"] < 10_000)
