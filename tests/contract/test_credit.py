"""Credit: what waits in a client is bounded, a full queue makes publishers wait, and nothing else waits with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

import sockbus.blocking
from tests.contract.runtime import PATIENCE, Runtime
from tests.contract.status import Page, first, page, until

Connect = Callable[..., Any]

KIB = 1 << 10
PREFIX_BYTES = 26  # docs/wire.md, "Frame"


class Flood:
    """Publishes numbers to a topic for as long as it may; ``count`` have been taken from it."""

    def __init__(self, bus: Any, topic: str, size: int = KIB) -> None:
        self.bus = bus
        self.topic = topic
        self.count = 0
        self._filling = b"x" * size

    async def __call__(self) -> None:
        while True:
            await self.bus.publish(self.topic, [self.count, self._filling])
            self.count += 1

    def is_held_up(self, found: Page) -> bool:
        """Whether its window is spent, so that it waits."""
        row = next(row for row in found["peers"] if row["id"] == self.bus.peer.id)
        return bool(row["held_bytes"] >= found["limits"]["window_bytes"])

    async def until_held_up(self, other: Any) -> int:
        """How many messages were published when it had to wait."""
        await until(other, self.is_held_up)
        return self.count


async def test_capacity_bounds_what_waits_in_the_client(connect: Connect, topic: str) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity=10) as messages:
        for number in range(100):
            await bus.publish(topic, number)
        row = first(await until(bus, lambda found: first(found, "subscriptions", topic)["waiting"] > 0), *where(topic))
        assert row["outstanding"] == 10
        for number in range(100):
            assert (await messages.receive()).payload == number
            assert first(await page(bus), *where(topic))["outstanding"] <= 10


def where(topic: str) -> tuple[str, str]:
    return "subscriptions", topic


@pytest.mark.parametrize("size", [100, 5000, 70_000])
async def test_capacity_bytes_bounds_what_waits_in_the_client(connect: Connect, topic: str, size: int) -> None:
    cost = PREFIX_BYTES + len(topic) + len(b"\xc6....") + size
    if size < 1 << 16:
        cost -= 2 if size >= 1 << 8 else 3  # a shorter form of the length
    else:
        cost += len(b"8 bytes.")  # the total of a message in pieces
    capacity = 3 * cost + 1
    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity_bytes=capacity) as messages:
        for number in range(12):
            await bus.publish(topic, bytes([number]) * size)
        row = first(await until(bus, lambda found: first(found, "subscriptions", topic)["waiting"] > 0), *where(topic))
        assert row["outstanding"] == 4  # the fourth was started with one byte of credit left
        came = [(await messages.receive()).payload for _ in range(12)]
    assert came == [bytes([number]) * size for number in range(12)]


async def test_nothing_is_too_large_for_an_empty_queue(connect: Connect, runtime: Runtime, topic: str) -> None:
    async def publish() -> None:
        for number in range(5):
            await bus.publish(topic, bytes([number]) * 300_000)

    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic, capacity=1, capacity_bytes=1) as messages,
        runtime.during(publish),
    ):
        assert [(await messages.receive()).payload[:1] for _ in range(5)] == [bytes([number]) for number in range(5)]


async def test_stopped_consumer_holds_up_who_publishes_to_it_and_loses_nothing(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with connect() as sender, connect() as taker, taker.subscribe(topic, capacity=64) as messages:
        flood = Flood(sender, topic)
        async with runtime.during(flood):
            count = await flood.until_held_up(taker)
            assert (await page(taker))["queues"]["bytes"] <= 3 << 20
            for number in range(2 * count):
                assert (await messages.receive()).payload[0] == number
        assert messages.lost == 0


async def test_others_go_on_beside_a_stopped_consumer(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with (
        connect() as sender,
        connect() as other,
        connect() as taker,
        taker.subscribe(f"{topic}.stopped", capacity=4, stall=inf),
        taker.subscribe(f"{topic}.read") as read,
        runtime.serving(taker, f"{topic}.served", lambda request: request.payload),
        runtime.during(flood := Flood(sender, f"{topic}.stopped")),
    ):
        await flood.until_held_up(other)
        for number in range(3000):
            await other.publish(f"{topic}.read", number)
        assert [(await read.receive()).payload for _ in range(3000)] == list(range(3000))
        # Requests have a window of their own, for the held-up publisher too.
        for bus in (other, sender, taker):
            assert (await bus.request(f"{topic}.served", b"y" * KIB)).payload == b"y" * KIB
        assert flood.is_held_up(await page(other))


async def test_publisher_goes_on_to_others_until_its_window_is_spent(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with (
        connect() as sender,
        connect() as taker,
        taker.subscribe(f"{topic}.stopped", capacity=1, stall=inf) as stopped,
        taker.subscribe(f"{topic}.read") as read,
    ):
        for number in range(100):
            await sender.publish(f"{topic}.stopped", number)
        for number in range(10_000):
            await sender.publish(f"{topic}.read", [number, b"x" * 230])
            if number % 100 == 99:
                numbers = [(await read.receive()).payload[0] for _ in range(100)]
                assert numbers == list(range(number - 99, number + 1))
        assert first(await page(taker), *where(f"{topic}.stopped"))["waiting"] > 0
        assert [(await stopped.receive()).payload for _ in range(100)] == list(range(100))


@pytest.mark.parametrize("capacity", [3, 1024])
async def test_who_has_taken_all_has_room_for_its_capacity_without_touching_the_bus_again(
    connect: Connect, runtime: Runtime, address: str, topic: str, capacity: int
) -> None:
    def publish(count: int) -> None:
        with sockbus.blocking.connect(address) as bus:
            for number in range(count):
                bus.publish(topic, number)
            bus.flush(timeout=PATIENCE)

    async with connect() as taker, taker.subscribe(topic, capacity=capacity) as messages:
        # Less than half of it.
        first_count = (capacity - 1) // 2
        await runtime.in_thread(lambda: publish(first_count))
        for number in range(first_count):
            assert (await messages.receive()).payload == number
        # The program does something else, and its event loop, if it has one, stands still.
        thread = threading.Thread(target=publish, args=[capacity])
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert [(await messages.receive()).payload for _ in range(capacity)] == list(range(capacity))
        assert messages.lost == 0


async def test_credit_comes_back_in_time_from_a_consumer_that_took_little(connect: Connect, topic: str) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity=10) as messages:
        for number in range(10):
            await bus.publish(topic, number)
        assert [(await messages.receive()).payload for _ in range(3)] == [0, 1, 2]
        # Asked by the consumer's own bus: a blocking one gives credit back in whatever call it is in.
        row = first(await until(taker, lambda found: first(found, *where(topic))["outstanding"] == 7), *where(topic))
        assert row["waiting"] == 0


async def test_consumer_asks_and_publishes_in_its_own_loop_with_every_queue_full(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    count = 300

    async def consume() -> None:
        for _ in range(count):
            number = (await jobs.receive()).payload[0]
            doubled = (await worker.request(f"{topic}.double", number)).payload
            await worker.publish(f"{topic}.done", [doubled, b"y" * 10 * KIB])

    async with (
        connect() as sender,
        connect() as worker,
        connect() as other,
        worker.subscribe(f"{topic}.job", capacity=1) as jobs,
        other.subscribe(f"{topic}.done", capacity=2) as done,
        runtime.serving(other, f"{topic}.double", lambda request: 2 * request.payload),
        runtime.during(flood := Flood(sender, f"{topic}.job"), consume),
    ):
        await flood.until_held_up(other)
        # What it has done by now waits for us: its own window may be spent as well.
        assert [(await done.receive()).payload[0] for _ in range(count)] == [2 * number for number in range(count)]


async def test_consumer_that_floods_itself_can_still_ask_in_its_own_loop(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with (
        connect() as bus,
        connect() as other,
        bus.subscribe(f"{topic}.job", capacity=1) as jobs,
        runtime.serving(bus, f"{topic}.double", lambda request: 2 * request.payload),
        runtime.during(flood := Flood(bus, f"{topic}.job")),
    ):
        await flood.until_held_up(other)
        for number in range(300):
            assert (await jobs.receive()).payload[0] == number
            assert (await bus.request(f"{topic}.double", number)).payload == 2 * number
