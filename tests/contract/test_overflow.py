"""Subscriptions that drop, and subscriptions that are ended: every message is taken or counted, and nobody waits."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sockbus import Receipt, SubscriptionStalled
from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime
from tests.contract.status import first, page, until

Connect = Callable[..., Any]

DROPPING = ["drop_oldest", "drop_newest", "latest"]


@pytest.fixture(scope="session")
def noisy_broker() -> Iterator[BrokerProcess]:
    """One that may log what it has ended."""
    with BrokerProcess() as broker:
        yield broker


@pytest.fixture
def noisily(runtime: Runtime, transport: str, noisy_broker: BrokerProcess) -> Connect:
    """``connect`` to it."""
    return functools.partial(runtime.connect, noisy_broker.address(transport))


async def until_all_came(bus: Any, topic: str, messages: Any, lost: int) -> None:
    """Until nothing of it is at the broker or on its way any more."""
    while True:
        row = first(await page(bus), "subscriptions", topic)
        if row["waiting"] == row["outstanding"] == 0 and messages.lost == lost:
            return


async def until_ended(bus: Any, topic: str) -> None:
    await until(bus, lambda found: first(found, "subscriptions", topic) == {})


async def take(messages: Any, count: int) -> list[tuple[Any, int]]:
    return [(message.payload, message.lost) for message in [await messages.receive() for _ in range(count)]]


@pytest.mark.parametrize(
    ("overflow", "story"),
    [
        ("drop_oldest", [(17, 17), (18, 0), (19, 0)]),
        ("drop_newest", [(0, 0), (1, 0), (2, 0)]),
        ("latest", [(19, 19)]),
    ],
)
async def test_what_is_not_taken_is_dropped_and_counted(
    connect: Connect, topic: str, overflow: str, story: list[tuple[int, int]]
) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic, overflow=overflow, capacity=3) as messages:
        for number in range(20):
            await bus.publish(topic, number)
        await bus.flush()
        lost = 20 - len(story)
        # Credit is back though nothing was taken, and the total is right though nothing more comes.
        await until_all_came(taker, topic, messages, lost)
        assert await take(messages, len(story)) == story
        await bus.publish(topic, "more")
        assert await take(messages, 1) == [("more", lost if overflow == "drop_newest" else 0)]
        assert messages.lost == lost
    assert messages.lost == lost


async def test_latest_keeps_one_of_each_topic(connect: Connect, topic: str) -> None:
    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(f"{topic}.*", overflow="latest", capacity=3) as messages,
    ):
        for number, name in enumerate("abcabacbd"):
            await bus.publish(f"{topic}.{name}", number)
        await bus.flush()
        await until_all_came(taker, f"{topic}.*", messages, 6)
        assert await take(messages, 3) == [(6, 6), (7, 0), (8, 0)]


@pytest.mark.parametrize("overflow", DROPPING)
async def test_flood_is_taken_or_counted_and_in_order(
    connect: Connect, runtime: Runtime, topic: str, overflow: str
) -> None:
    """The taker is slower than the publisher, who is never held up."""
    count = 5000
    story: list[tuple[Any, int]] = []

    async def publish() -> None:
        for number in range(count):
            await bus.publish(topic, number)
        while not story or story[-1][0] != "end":
            await bus.publish(topic, "end", receipt=True)

    async def read() -> None:
        while not story or story[-1][0] != "end":
            story.extend(await take(messages, 1))
            await runtime.turn()

    async with connect() as bus, connect() as taker:
        subscription = taker.subscribe(topic, overflow=overflow, capacity=50, capacity_bytes=2000)
        async with subscription as messages:
            await runtime.gather(publish, read)
    at = 0
    for number, lost in story:
        at += lost
        assert number == (at if at < count else "end")
        at += 1


async def test_publisher_is_told_what_was_dropped_at_the_broker(connect: Connect, runtime: Runtime, topic: str) -> None:
    receipts: list[Receipt] = []

    async def ask(number: int) -> None:
        receipts.append(await bus.publish(topic, number, receipt=True))

    async def read() -> None:
        # What comes, in every runtime: nobody takes it.
        while len(receipts) < 200:
            await page(taker)

    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic, overflow="drop_newest", capacity=1) as messages,
    ):
        await runtime.gather(read, *[functools.partial(ask, number) for number in range(200)])
        dropped = sum(receipt.dropped for receipt in receipts)
        assert {receipt.matched for receipt in receipts} == {1}
        assert sum(receipt.delivered for receipt in receipts) == 200 - dropped
        await until_all_came(taker, topic, messages, 199)
        assert first(await page(bus), "subscriptions", topic)["lost"] == dropped <= 199


async def test_files_of_what_is_dropped_are_closed(connect: Connect, topic: str) -> None:
    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic, overflow="drop_oldest", capacity=2) as messages,
    ):
        if bus.transport == "tcp":
            return
        before = len(os.listdir("/proc/self/fd"))
        for number in range(10):
            file = os.memfd_create("dropped")
            os.write(file, b"%d" % number)
            await bus.publish(topic, number, fds=[file])
            os.close(file)
        await bus.flush()
        await until_all_came(taker, topic, messages, 8)
        assert len(os.listdir("/proc/self/fd")) == before + 2
        for number in (8, 9):
            with await messages.receive() as message:
                assert os.pread(message.fds[0].fileno(), 9, 0) == b"%d" % number


async def test_disconnect_ends_the_subscription_and_nothing_else(noisily: Connect, topic: str) -> None:
    async with noisily() as bus, noisily() as taker, taker.subscribe("other") as other:
        async with taker.subscribe(topic, overflow="disconnect", capacity=3) as messages:
            published = matched = 0
            while first(await page(bus), "subscriptions", topic):
                matched += (await bus.publish(topic, published, receipt=True)).matched
                published += 1
                await page(taker)
            assert await take(messages, 3) == [(0, 0), (1, 0), (2, 0)]
            for _ in range(2):
                with pytest.raises(SubscriptionStalled, match=f"'{topic}'.*'disconnect'"):
                    await messages.receive()
            assert messages.lost == matched - 3 > 0
            await bus.publish("other", "on")
            assert (await other.receive()).payload == "on"
        async with taker.subscribe(topic) as again:
            await bus.publish(topic, "again")
            assert await take(again, 1) == [("again", 0)]


async def test_reader_that_takes_nothing_is_ended_after_its_stall(
    noisily: Connect, runtime: Runtime, topic: str
) -> None:
    receipts: list[Receipt] = []

    async def ask(number: int) -> None:
        receipts.append(await bus.publish(topic, number, receipt=True))

    async with noisily() as bus, noisily() as taker, taker.subscribe("other") as other:
        async with taker.subscribe(topic, capacity=2, stall=0.4) as messages:
            for number in range(2):
                assert await bus.publish(topic, number, receipt=True) == Receipt(1, 1, 0, 0)
            began = time.monotonic()
            await runtime.gather(*[functools.partial(ask, number) for number in range(2, 5)])
            assert time.monotonic() - began > 0.39
            assert receipts == [Receipt(1, 0, 1, 0)] * 3
            await until_ended(taker, topic)
            assert await take(messages, 2) == [(0, 0), (1, 0)]
            text = (
                f"'{topic}' was ended.*stall = 0.4 s while 3 messages wait and 2 are outstanding.*take messages faster"
            )
            for call in (messages.receive, lambda: anext(aiter(messages)), lambda: anext(aiter(messages.batches()))):
                with pytest.raises(SubscriptionStalled, match=text):
                    await call()
            assert messages.lost == 3
            await bus.publish("other", "on")
            assert (await other.receive()).payload == "on"
            assert await bus.publish(topic, receipt=True) == Receipt(0, 0, 0, 0)
        assert messages.lost == 3


async def test_reader_that_is_slow_is_not_ended(connect: Connect, runtime: Runtime, topic: str) -> None:
    count = 25  # a tenth of the stall each, and more than twice the stall in all

    async def publish() -> None:
        for number in range(count):
            await bus.publish(topic, number)
        await bus.flush()

    async def read() -> None:
        for number in range(count):
            await runtime.in_thread(functools.partial(time.sleep, 0.1))
            assert await take(messages, 1) == [(number, 0)]

    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity=2, stall=1.0) as messages:
        await runtime.gather(publish, read)
        assert messages.lost == 0


@pytest.mark.parametrize("stall", [1, 0.001, 1e9, math.inf])
async def test_stall_ends_nobody_for_whom_nothing_waits(connect: Connect, topic: str, stall: float) -> None:
    async with connect() as bus, bus.subscribe(topic, capacity=3, stall=stall) as messages:
        for number in range(3):
            await bus.publish(topic, number)
        await bus.flush()
        row = first(await page(bus), "subscriptions", topic)
        assert (row["overflow"], row["stall"], row["waiting"]) == ("block", None if stall == math.inf else stall, 0)
        assert await take(messages, 3) == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"overflow": "drop"}, "overflow='drop' is none of 'block', 'drop_oldest'"),
        ({"overflow": None}, "overflow=None is none of"),
        ({"overflow": "latest", "group": "g"}, "overflow='latest' is for a subscription alone"),
        *[
            ({"stall": stall}, "is no number of seconds above 0, nor None")
            for stall in (0, -1.5, math.nan, True, "1", -math.inf)
        ],
    ],
)
async def test_options_that_mean_nothing_are_refused(
    connect: Connect, topic: str, options: dict[str, Any], text: str
) -> None:
    async with connect() as bus:
        with pytest.raises(ValueError, match=text):
            bus.subscribe(topic, **options)
        await bus.flush()
