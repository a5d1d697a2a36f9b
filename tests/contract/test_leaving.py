"""Flushing and leaving: nothing that was published is left behind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.runtime import Runtime
from tests.contract.status import Page, first, page, until

Connect = Callable[..., Any]


async def until_waiting(bus: Any, topic: str) -> None:
    await until(bus, lambda found: first(found, "subscriptions", topic)["waiting"] > 0)


@pytest.mark.parametrize("size", [10, 10_000, 2_000_000])
async def test_what_was_published_before_leaving_arrives(connect: Connect, topic: str, size: int) -> None:
    count = min(20_000, 2_000_000 // size)
    async with connect() as taker, taker.subscribe(topic, capacity_bytes=1 << 30, capacity=1 << 20) as messages:
        async with connect() as bus:
            for number in range(count):
                await bus.publish(topic, [number, b"x" * size])
        assert [(await messages.receive()).payload[0] for _ in range(count)] == list(range(count))


@pytest.mark.parametrize("verb", ["flush", "leave"])
async def test_flushing_and_leaving_wait_until_the_broker_has_taken_over(
    connect: Connect, runtime: Runtime, topic: str, verb: str
) -> None:
    done: list[str] = []

    async def publish() -> None:
        async with connect() as bus:
            for number in range(5):
                await bus.publish(topic, number)
            if verb == "flush":
                await bus.flush()
                done.append("flushed")
        done.append("left")

    async with connect() as taker, taker.subscribe(topic, capacity=1, stall=1e9) as messages, runtime.during(publish):
        await until_waiting(taker, topic)
        for number in range(4):
            assert done == []
            assert (await messages.receive()).payload == number
        assert (await messages.receive()).payload == 4
        while "left" not in done:
            await runtime.turn()
    assert done == (["flushed", "left"] if verb == "flush" else ["left"])


async def test_flush_waits_for_what_was_published_before_it_alone(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity=1, stall=1e9) as messages:
        await bus.publish(topic, 0)
        await bus.flush()

        async def publish_more() -> None:
            await bus.publish(topic, 1, receipt=True)

        async with runtime.during(publish_more):
            await until_waiting(taker, topic)
            assert (await messages.receive()).payload == 0
            assert (await messages.receive()).payload == 1
            await bus.flush()


async def test_flushes_of_many_tasks_all_return(connect: Connect, runtime: Runtime, topic: str) -> None:
    async def publish_and_flush(number: int) -> None:
        await bus.publish(topic, number)
        await bus.flush()

    async with connect() as bus, bus.subscribe(topic) as messages:
        await runtime.gather(*[functools.partial(publish_and_flush, number) for number in range(100)])
        assert sorted([(await messages.receive()).payload for _ in range(100)]) == list(range(100))


class Unusual(Exception):
    """What a program raises."""


async def test_exception_that_leaves_the_block_is_the_programs_own(connect: Connect, topic: str) -> None:
    async with connect() as taker, taker.subscribe(topic) as messages:
        with pytest.raises(Unusual) as caught:
            async with connect() as bus:
                await bus.publish(topic, "before")
                raise Unusual("of the block")
        assert type(caught.value) is Unusual
        assert not hasattr(caught.value, "__notes__")
        assert (await messages.receive()).payload == "before"


async def test_exception_comes_through_every_verb_that_is_a_block(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    with pytest.raises(Unusual):
        async with connect() as bus, bus.subscribe(topic) as messages:
            await bus.publish(topic)
            async for _ in messages:
                raise Unusual
    async with connect() as bus:
        with pytest.raises(Unusual):
            async with bus.subscribe(topic):
                raise Unusual
        assert first(await page(bus), "subscriptions", topic) == {}


async def test_connections_within_connections_are_left_in_order(connect: Connect, topic: str) -> None:
    async with connect(name="outer") as outer, outer.subscribe(topic) as messages:
        for _ in range(3):
            async with connect(name="middle") as middle:
                async with connect(name="inner") as inner:
                    await inner.publish(topic, "inner")
                    await outer.publish(topic, "outer")
                await middle.publish(topic, "middle")
            names = [(message.payload, message.sender.name) for message in [await messages.receive() for _ in range(3)]]
            assert sorted(names) == [(name, name) for name in ("inner", "middle", "outer")]
        found = await until(outer, lambda found: not {"inner", "middle"} & names_of(found))
        assert "outer" in names_of(found)


def names_of(found: Page) -> set[str]:
    return {peer["name"] for peer in found["peers"]}


async def test_broker_forgets_who_has_left(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        before = len((await page(bus))["peers"])
        for _ in range(50):
            async with connect() as other, other.subscribe(topic):
                await other.publish(topic)
        found = await until(bus, lambda found: len(found["peers"]) == before)
        assert first(found, "subscriptions", topic) == {}
