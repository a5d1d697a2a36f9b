"""Publishing and taking, cancelled at any of their waits: nothing is lost, and nothing is torn."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import Message
from tests.contract.runtime import EVENT_LOOPS, Runtime
from tests.contract.status import Page, until

Connect = Callable[..., Any]

pytestmark = pytest.mark.parametrize("runtime", EVENT_LOOPS, indirect=True)

SEED = 20_240
LARGE = 150_000


def content(number: int) -> bytes:
    return b"%d" % number


async def publish(bus: Any, topic: str, number: int) -> None:
    """One of every kind, in turn."""
    kind = number % 4
    body = [number, b"x" * (LARGE if kind == 1 else 500)]
    if kind != 2 or bus.transport == "tcp":
        await bus.publish(topic, body, receipt=kind == 3, headers={"n": number} if kind == 1 else None)
        return
    fd = os.memfd_create("passed")
    try:
        os.write(fd, content(number))
        await bus.publish(topic, body, fds=[fd, fd])
    finally:
        os.close(fd)


def check(message: Message) -> int:
    """That a message is whole; its number."""
    number: int = message.payload[0]
    kind = number % 4
    assert len(message.payload[1]) == (LARGE if kind == 1 else 500)
    assert message.headers == ({"n": number} if kind == 1 else {})
    expected = [content(number)] * 2 if kind == 2 and message.sender.transport != "tcp" else []
    with message:
        assert [os.pread(fd.fileno(), 64, 0) for fd in message.fds] == expected
    return number


async def test_cancelled_publish_was_sent_wholly_or_not_at_all(connect: Connect, runtime: Runtime, topic: str) -> None:
    choose = random.Random(SEED)
    sure: set[int] = set()
    count = 400
    came: list[int] = []

    async def take() -> None:
        async for message in messages:
            came.append(check(message))
            if came[-1] == count:
                return
            # Slower than the publisher, whose window is therefore mostly spent.
            for _ in range(choose.randrange(4)):
                await runtime.turn()

    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic, capacity=3, capacity_bytes=1000) as messages,
    ):

        async def publish_all() -> None:
            for number in range(count):
                if not await runtime.cancelled_at(
                    choose.randrange(1, 4), functools.partial(publish, bus, topic, number)
                ):
                    sure.add(number)
            await publish(bus, topic, count)

        await runtime.gather(take, publish_all)
    assert came == sorted(set(came))
    assert sure <= set(came)
    assert len(sure) < count


async def test_publish_that_waits_for_room_is_not_sent_when_cancelled(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    filled = 0

    async def fill() -> None:
        nonlocal filled
        while True:
            await bus.publish(topic, [filled, b"x" * LARGE])
            filled += 1

    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity=1, stall=1e9) as messages:
        async with runtime.during(fill):
            await until(taker, lambda found: held_up(found, bus))
        kinds: list[dict[str, Any]] = [{}, {"receipt": True}, {"headers": {"k": 1}}]
        if bus.transport != "tcp":
            kinds.append({"fds": [0]})
        for kind in kinds:
            assert await runtime.cancelled_at(1, functools.partial(bus.publish, topic, "never", **kind))
        assert [(await messages.receive()).payload[0] for _ in range(filled)] == list(range(filled))
        await bus.publish(topic, "next")
        assert (await messages.receive()).payload == "next"


def held_up(found: Page, bus: Any) -> bool:
    row = next(row for row in found["peers"] if row["id"] == bus.peer.id)
    return bool(row["held_bytes"] >= found["limits"]["window_bytes"])


class Taker:
    """Ways to take, each cancelled at random again and again."""

    def __init__(self, runtime: Runtime, messages: Any, count: int, choose: random.Random) -> None:
        self.runtime = runtime
        self.messages = messages
        self.count = count
        self.choose = choose
        self.came: list[int] = []
        self.cancelled = 0

    async def receive(self) -> None:
        self.came.append(check(await self.messages.receive()))

    async def iterate(self) -> None:
        async for message in self.messages:
            self.came.append(check(message))
            if self.has_enough():
                return

    async def batches(self) -> None:
        async for batch in self.messages.batches():
            self.came += map(check, batch)
            if self.has_enough():
                return

    def has_enough(self) -> bool:
        return len(self.came) == self.count or self.choose.random() < 0.3

    async def take(self) -> None:
        while len(self.came) < self.count:
            call = self.choose.choice([self.receive, self.iterate, self.batches])
            self.cancelled += await self.runtime.cancelled_at(self.choose.randrange(1, 4), call)


async def test_cancelled_taking_loses_no_message(connect: Connect, runtime: Runtime, topic: str) -> None:
    count = 600

    async def publish_all() -> None:
        for number in range(count):
            await publish(bus, topic, number)
            if number % 3 == 0:
                await runtime.turn()

    async with connect() as bus, connect() as other, other.subscribe(topic, capacity=64) as messages:
        taker = Taker(runtime, messages, count, random.Random(SEED))
        await runtime.gather(publish_all, taker.take)
    assert taker.came == list(range(count))
    assert taker.cancelled > 0
