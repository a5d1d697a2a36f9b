"""Taking from a subscription: one by one, in batches, by several tasks, and beside the program's other work."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import ConnectionLost, Message
from tests.contract.runtime import Runtime
from tests.contract.status import first, page, until

Connect = Callable[..., Any]

COUNT = 5000


async def publish_numbers(bus: Any, topic: str, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        await bus.publish(topic, number)


async def test_messages_of_one_publisher_come_in_order(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as sender, connect() as taker, taker.subscribe(topic) as messages:
        came: list[int] = []

        async def take() -> None:
            async for message in messages:
                came.append(message.payload)
                if len(came) == COUNT:
                    return

        await runtime.gather(take, functools.partial(publish_numbers, sender, topic, COUNT))
    assert came == list(range(COUNT))


async def test_messages_of_each_publisher_come_in_order_on_all_topics(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    kinds: list[dict[str, Any]] = [{}, {"headers": {"h": 1}}, {"receipt": True}]

    async def publish(bus: Any, name: str) -> None:
        for number in range(300):
            size = 70_000 if number % 100 == 50 else 10
            await bus.publish(f"{topic}.{number % 7}", [name, number, b"x" * size], **kinds[number % 3])

    async with (
        connect() as one,
        connect() as two,
        connect() as taker,
        taker.subscribe(f"{topic}.*") as messages,
        runtime.during(functools.partial(publish, one, "one"), functools.partial(publish, two, "two")),
    ):
        came = [(await messages.receive()).payload[:2] for _ in range(600)]
    for name in ("one", "two"):
        assert [number for sender, number in came if sender == name] == list(range(300))


async def test_batches_are_never_empty_and_hold_everything_in_order(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        came: list[int] = []
        sizes: list[int] = []

        async def take() -> None:
            async for batch in messages.batches():
                sizes.append(len(batch))
                came.extend(message.payload for message in batch)
                if len(came) == COUNT:
                    return

        # Some are there before anybody takes.
        await publish_numbers(bus, topic, 500)
        await bus.flush()
        await runtime.gather(take, functools.partial(publish_numbers, bus, topic, COUNT - 500, start=500))
    assert came == list(range(COUNT))
    assert min(sizes) >= 1
    assert max(sizes) > 1


async def test_tasks_at_one_subscription_share_its_messages(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as bus:
        taken: list[list[int]] = [[] for _ in range(4)]

        async def one_by_one(mine: list[int]) -> None:
            async for message in messages:
                mine.append(message.payload)
                await runtime.turn()

        async def by_batches(mine: list[int]) -> None:
            async for batch in messages.batches():
                mine.extend(message.payload for message in batch)
                await runtime.turn()

        async def by_receiving(mine: list[int]) -> None:
            with pytest.raises(ConnectionLost, match="was left"):
                while True:
                    mine.append((await messages.receive()).payload)
                    await runtime.turn()

        async def publish_and_leave() -> None:
            await publish_numbers(bus, topic, COUNT)
            while sum(map(len, taken)) < COUNT:
                await runtime.turn()
            await messages.__aexit__(None, None, None)

        messages = bus.subscribe(topic)
        await messages.__aenter__()
        takers = [one_by_one, one_by_one, by_batches, by_receiving]
        await runtime.gather(
            publish_and_leave, *(functools.partial(take, mine) for take, mine in zip(takers, taken, strict=True))
        )
    assert sorted(number for mine in taken for number in mine) == list(range(COUNT))
    assert all(mine == sorted(mine) for mine in taken)
    assert sum(bool(mine) for mine in taken) > 1


async def test_iteration_ends_quietly_when_the_subscription_is_left(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        async with bus.subscribe(topic) as messages:
            await bus.publish(topic, "not taken")
            await bus.flush()
        assert [message async for message in messages] == []
        assert [batch async for batch in messages.batches()] == []
        with pytest.raises(ConnectionLost, match=f"the subscription to '{topic}' was left"):
            await messages.receive()
        assert messages.lost == 0


async def test_what_is_published_before_a_subscription_is_in_force_is_not_seen(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        await bus.publish(topic, "before")
        async with bus.subscribe(topic) as messages:
            await bus.publish(topic, "after")
            assert (await messages.receive()).payload == "after"


async def test_subscription_that_was_left_gets_nothing_and_others_go_on(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as stays:
        async with bus.subscribe(topic):
            await publish_numbers(bus, topic, 500)
        await publish_numbers(bus, topic, 500, start=500)
        came = [(await stays.receive()).payload for _ in range(1000)]
        found = await until(bus, lambda found: len(found["subscriptions"]) >= 1)
    assert came == list(range(1000))
    assert sum(row["pattern"] == topic for row in found["subscriptions"]) == 1


async def test_subscribing_and_leaving_in_mid_stream_disturbs_nobody(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with connect() as sender, connect() as taker, taker.subscribe(topic) as stays:

        async def come_and_go() -> None:
            while True:
                async with taker.subscribe(topic) as messages:
                    seen = [(await messages.receive()).payload for _ in range(3)]
                assert seen == list(range(seen[0], seen[0] + 3))

        publish = functools.partial(publish_numbers, sender, topic, COUNT)
        async with runtime.during(publish, come_and_go, come_and_go):
            assert [(await stays.receive()).payload for _ in range(COUNT)] == list(range(COUNT))


async def test_many_subscriptions_of_one_connection_each_get_theirs(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        entered = [bus.subscribe(f"{topic}.{number}") for number in range(100)]
        for messages in entered:
            await messages.__aenter__()
        for number in range(100):
            await bus.publish(f"{topic}.{number}", number)
        assert [(await messages.receive()).payload for messages in entered] == list(range(100))
        for messages in entered:
            await messages.__aexit__(None, None, None)
        assert first(await page(bus), "subscriptions", f"{topic}.5") == {}


async def test_subscription_is_entered_once_before_anything_is_taken(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        messages = bus.subscribe(topic)
        for take in (messages.__aiter__, messages.batches, lambda: messages.lost):
            with pytest.raises(RuntimeError, match=rf"'{topic}' is not in force; enter it with `(async )?with` first"):
                take()
        with pytest.raises(RuntimeError, match="is not in force"):
            await messages.receive()
        for _ in range(2):
            async with bus.subscribe(topic):
                pass
        async with messages:
            with pytest.raises(RuntimeError, match="was entered before; make another one"):
                await messages.__aenter__()
            await bus.publish(topic, "x")
            assert (await messages.receive()).payload == "x"
        with pytest.raises(RuntimeError, match="was entered before"):
            await messages.__aenter__()


async def test_message_repeats_itself_in_a_sentence(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        await bus.publish(topic, "x")
        message: Message = await messages.receive()
        assert repr(message) == f"<Message '{topic}' from peer {bus.peer.id}, 2 bytes>"
