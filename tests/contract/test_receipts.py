"""Receipts: what became of a message, in numbers, once each match has it or has dropped it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import Receipt
from tests.contract.runtime import Runtime
from tests.contract.status import first, until

Connect = Callable[..., Any]


class Asked:
    """A publish that waits for its receipt beside the test."""

    def __init__(self, bus: Any, topic: str, payload: object) -> None:
        self._publish = functools.partial(bus.publish, topic, payload, receipt=True)
        self.receipt: Receipt | None = None

    async def __call__(self) -> None:
        self.receipt = await self._publish()


async def until_waiting(bus: Any, topic: str, count: int = 1) -> None:
    """Until so many messages wait at the broker for a subscription's credit."""
    await until(bus, lambda found: first(found, "subscriptions", topic)["waiting"] == count)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
async def test_receipt_counts_the_subscriptions_that_match(connect: Connect, topic: str, count: int) -> None:
    async with connect() as bus, connect() as taker:
        entered = [taker.subscribe(f"{topic}.>") for _ in range(count)]
        for messages in entered:
            await messages.__aenter__()
        assert await bus.publish(f"{topic}.a", "x", receipt=True) == Receipt(count, count, 0, 0)
        assert await bus.publish("another.topic", "x", receipt=True) == Receipt(0, 0, 0, 0)
        for messages in entered:
            assert (await messages.receive()).payload == "x"
            await messages.__aexit__(None, None, None)


async def test_group_counts_as_one_match(connect: Connect, topic: str) -> None:
    async with (
        connect() as bus,
        bus.subscribe(topic, group="g"),
        bus.subscribe(topic, group="g"),
        bus.subscribe(topic, group="h"),
        bus.subscribe(topic),
    ):
        assert await bus.publish(topic, receipt=True) == Receipt(3, 3, 0, 0)


async def test_receipt_waits_until_a_slow_subscriber_has_credit(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity=1, stall=1e9) as messages:
        assert await bus.publish(topic, 1, receipt=True) == Receipt(1, 1, 0, 0)
        second = Asked(bus, topic, 2)
        async with runtime.during(second):
            await until_waiting(bus, topic)
            assert second.receipt is None
            assert (await messages.receive()).payload == 1
            assert (await messages.receive()).payload == 2
            await until_waiting(bus, topic, 0)
            while second.receipt is None:
                await runtime.turn()
        assert second.receipt == Receipt(1, 1, 0, 0)


async def test_message_that_waits_for_a_subscription_that_is_left_counts_as_dropped(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic) as quick:
        slow = taker.subscribe(topic, capacity=1, stall=1e9)
        await slow.__aenter__()
        await bus.publish(topic, 1)
        waiting = [Asked(bus, topic, number) for number in (2, 3)]

        async def leave() -> None:
            await until(bus, lambda found: any(row["waiting"] == 2 for row in found["subscriptions"]))
            await slow.__aexit__(None, None, None)

        await runtime.gather(*waiting, leave)
        assert [asked.receipt for asked in waiting] == [Receipt(2, 1, 1, 0)] * 2
        assert sorted([(await quick.receive()).payload for _ in range(3)]) == [1, 2, 3]


async def test_message_that_waits_for_a_connection_that_ends_counts_as_dropped(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with connect() as bus:
        asked = Asked(bus, topic, "waits")

        async def come_and_go() -> None:
            async with connect() as taker, taker.subscribe(topic, capacity=1, stall=1e9):
                await bus.publish(topic, "fills")
                subscribed.set()
                await until_waiting(bus, topic)

        async def publish() -> None:
            await subscribed.wait()
            await asked()

        subscribed = runtime.event()
        await runtime.gather(come_and_go, publish)
        assert asked.receipt == Receipt(1, 0, 1, 0)


async def test_many_receipts_asked_for_at_once_each_come(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(f"{topic}.a", capacity=16) as messages:
        asked = [Asked(bus, f"{topic}.{'ab'[number % 2]}", number) for number in range(1000)]

        async def take() -> None:
            assert sorted([(await messages.receive()).payload for _ in range(500)]) == list(range(0, 1000, 2))

        await runtime.gather(take, *asked)
    assert [each.receipt for each in asked] == [Receipt(1, 1, 0, 0), Receipt(0, 0, 0, 0)] * 500


async def test_receipts_and_plain_publishes_keep_one_order(connect: Connect, runtime: Runtime, topic: str) -> None:
    async def publish() -> None:
        for number in range(600):
            await bus.publish(topic, number, receipt=number % 3 == 0)

    async with connect() as bus, connect() as taker, taker.subscribe(topic) as messages, runtime.during(publish):
        assert [(await messages.receive()).payload for _ in range(600)] == list(range(600))
