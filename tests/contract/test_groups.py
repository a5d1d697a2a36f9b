"""Groups: each message goes to one member, the one with the fewest outstanding, and to another when that one goes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tests.contract.peers import peer
from tests.contract.runtime import Runtime
from tests.contract.status import page, until

Connect = Callable[..., Any]


async def take_into(messages: Any, taken: list[int]) -> None:
    async for message in messages:
        taken.append(message.payload)  # noqa: PERF401  # seen by others as it grows


def outstanding(found: dict[str, Any], topic: str) -> list[int]:
    return sorted(row["outstanding"] for row in found["subscriptions"] if row["pattern"] == topic)


async def until_all(runtime: Runtime, taken: list[list[int]], count: int) -> None:
    while sum(map(len, taken)) < count:
        await runtime.turn()


async def test_each_message_goes_to_one_member(connect: Connect, runtime: Runtime, topic: str) -> None:
    count = 3000
    taken: list[list[int]] = [[], [], []]
    async with (
        connect() as bus,
        connect() as one,
        connect() as two,
        one.subscribe(topic, group="g") as first,
        two.subscribe(topic, group="g") as second,
        two.subscribe(topic, group="g") as third,
        runtime.during(
            *(functools.partial(take_into, *each) for each in zip((first, second, third), taken, strict=True))
        ),
    ):
        for number in range(count):
            await bus.publish(topic, number)
        await until_all(runtime, taken, count)
    assert sorted(number for mine in taken for number in mine) == list(range(count))
    assert all(mine == sorted(mine) for mine in taken)
    assert all(mine for mine in taken)


async def test_groups_of_other_names_and_patterns_and_plain_subscriptions_each_get_all(
    connect: Connect, topic: str
) -> None:
    async with (
        connect() as bus,
        bus.subscribe(f"{topic}.a", group="g") as named,
        bus.subscribe(f"{topic}.a", group="h") as other_name,
        bus.subscribe(f"{topic}.*", group="g") as other_pattern,
        bus.subscribe(f"{topic}.a") as plain,
    ):
        for number in range(50):
            await bus.publish(f"{topic}.a", number)
        for messages in (named, other_name, other_pattern, plain):
            assert [(await messages.receive()).payload for _ in range(50)] == list(range(50))


async def test_member_that_works_is_passed_over(connect: Connect, runtime: Runtime, topic: str) -> None:
    at_work, release = runtime.event(), runtime.event()
    done: list[tuple[str, Any]] = []

    async def work(name: str, messages: Any) -> None:
        async for message in messages:
            if message.payload == "long":
                at_work.set()
                await release.wait()
            done.append((name, message.payload))

    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic, group="g") as one,
        taker.subscribe(topic, group="g") as two,
        runtime.during(functools.partial(work, "one", one), functools.partial(work, "two", two)),
    ):
        await bus.publish(topic, "long")
        await at_work.wait()
        for number in range(20):
            # The one at work is not free before it comes back for more.
            await until(bus, lambda found: outstanding(found, topic) == [0, 1])
            await bus.publish(topic, number)
        await until(bus, lambda found: outstanding(found, topic) == [0, 1])
        release.set()
        await until(bus, lambda found: outstanding(found, topic) == [0, 0])
    free = done[0][0]
    assert done[:-1] == [(free, number) for number in range(20)]
    assert done[-1] == ("two" if free == "one" else "one", "long")


async def test_messages_spread_evenly_over_members_that_take_nothing(connect: Connect, topic: str) -> None:
    async with connect() as bus, connect() as taker:
        members = [taker.subscribe(topic, group="g", capacity=10) for _ in range(3)]
        for member in members:
            await member.__aenter__()
        for number in range(20):
            await bus.publish(topic, number)
        await bus.flush()
        assert outstanding(await page(bus), topic) == [6, 7, 7]
        for number in range(20, 40):
            await bus.publish(topic, number)
        found = await until(bus, lambda found: sum(outstanding(found, topic)) == 30)
        assert outstanding(found, topic) == [10, 10, 10]
        for member in members:
            await member.__aexit__(None, None, None)


async def test_group_without_credit_keeps_messages_for_the_first_member_that_has_some(
    connect: Connect, topic: str
) -> None:
    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic, group="g", capacity=1),
        taker.subscribe(topic, group="g", capacity=1) as second,
    ):
        for number in range(10):
            await bus.publish(topic, number)
        await until(bus, lambda found: outstanding(found, topic) == [1, 1])
        came = [(await second.receive()).payload for _ in range(9)]
    assert len(set(came)) == 9
    assert came == sorted(came)


async def test_what_waits_goes_to_the_others_when_a_member_leaves(connect: Connect, topic: str) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic, group="g", capacity=1) as stays:
        leaves = taker.subscribe(topic, group="g", capacity=1)
        await leaves.__aenter__()
        for number in range(10):
            await bus.publish(topic, number)
        await until(bus, lambda found: outstanding(found, topic) == [1, 1])
        await leaves.__aexit__(None, None, None)
        # One was with the member that left: it was delivered, and thrown away there.
        came = [(await stays.receive()).payload for _ in range(9)]
        assert len(set(came)) == 9
        await bus.publish(topic, "last")
        assert (await stays.receive()).payload == "last"


async def test_last_member_that_leaves_takes_the_group_with_it(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        async with bus.subscribe(topic, group="g"):
            assert (await bus.publish(topic, receipt=True)).matched == 1
        assert (await bus.publish(topic, receipt=True)).matched == 0
        async with bus.subscribe(topic, group="g") as messages:
            await bus.publish(topic, "new")
            assert (await messages.receive()).payload == "new"


async def test_member_that_is_killed_costs_only_what_it_had(
    connect: Connect, runtime: Runtime, topic: str, address: str
) -> None:
    taken: list[int] = []
    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic, group="g") as stays,
        runtime.during(functools.partial(take_into, stays, taken)),
    ):
        with peer("hoard", address, topic, "g") as killed:
            for number in range(300):
                await bus.publish(topic, number)
            await bus.flush()
            found = await until(bus, lambda found: outstanding(found, topic)[0] == 0)
            hoarded = outstanding(found, topic)[1]
            assert 0 < hoarded < 300
            killed.process.kill()
            await until(bus, lambda found: outstanding(found, topic) == [0])
        for number in range(300, 400):
            await bus.publish(topic, number)
        await until_all(runtime, [taken], 400 - hoarded)
    assert taken == sorted(set(taken))
    assert taken[-100:] == list(range(300, 400))
