"""Waiting until somebody listens or serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sockbus import ConnectionLost, InvalidTopic, LimitExceeded
from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime
from tests.contract.status import page

Connect = Callable[..., Any]


async def test_who_listens_already_is_there_at_once(connect: Connect, topic: str) -> None:
    async with connect() as bus, connect() as other, other.subscribe(f"{topic}.*"):
        await bus.wait_for(f"{topic}.a")
        await bus.wait_for(f"{topic}.a", subscribers=1, timeout=60)
        await bus.wait_for(f"{topic}.>", subscribers=1)
        await bus.wait_for("*.b", subscribers=1)
        await bus.wait_for(topic, subscribers=0, servers=0)


async def test_who_comes_later_is_waited_for(runtime: Runtime, connect: Connect, topic: str) -> None:
    order: list[str] = []
    waiting = runtime.event()
    async with connect() as bus, connect() as other:

        async def wait() -> None:
            waiting.set()
            await bus.wait_for(topic)
            order.append("there")
            await bus.publish(topic, "first")

        async def come() -> None:
            await waiting.wait()
            # Those do not help.
            async with other.subscribe(f"{topic}.below"), runtime.serving(other, topic, print):
                await page(other)
                order.append("comes")
                async with other.subscribe(topic) as messages:
                    assert (await messages.receive()).payload == "first"

        await runtime.gather(wait, come)
    assert order == ["comes", "there"]


async def test_so_many_are_waited_for_members_of_groups_included(
    runtime: Runtime, connect: Connect, topic: str
) -> None:
    async with connect() as bus, connect() as other:
        there = False

        async def wait() -> None:
            nonlocal there
            await bus.wait_for(topic, subscribers=3)
            there = True

        async def come() -> None:
            async with other.subscribe(topic), other.subscribe(topic, group="g"):
                for _ in range(3):
                    # Comes and goes, and so is never the third.
                    await page(other)
                assert not there
                async with other.subscribe("*", group="g"):
                    await bus.wait_for(topic, subscribers=3)

        await runtime.gather(wait, come)
    assert there


async def test_servers_are_waited_for(runtime: Runtime, connect: Connect, topic: str) -> None:
    async with connect() as bus, connect() as other:
        asked = runtime.event()

        async def ask() -> None:
            asked.set()
            await bus.wait_for(f"{topic}.up", servers=1)
            assert (await bus.request(f"{topic}.up", "a")).payload == "A"
            await bus.wait_for(f"{topic}.*", servers=1, subscribers=1)

        async def serve() -> None:
            await asked.wait()
            async with (
                other.subscribe(f"{topic}.up"),
                runtime.serving(other, f"{topic}.*", lambda request: request.payload.upper()),
            ):
                await bus.wait_for(f"{topic}.up", servers=1, subscribers=1)

        async with other.subscribe(f"{topic}.x"), runtime.serving(other, f"{topic}.*", lambda r: r.payload.upper()):
            await runtime.gather(ask, serve)


async def test_broker_serves_pages_of_its_own(connect: Connect) -> None:
    async with connect() as bus:
        await bus.wait_for("$SYS.status", servers=1, timeout=60)
        await bus.wait_for("$SYS.*", servers=4, timeout=60)
        for pattern, servers in (("$SYS.status", 2), ("$SYS.nothing", 1), ("*.status", 1)):
            with pytest.raises(TimeoutError):
                await bus.wait_for(pattern, servers=servers, timeout=0.02)


async def test_wait_in_vain_names_topic_and_time(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        with pytest.raises(TimeoutError, match=rf"1 subscriptions to '{topic}' were not there within 0\.05 s"):
            await bus.wait_for(topic, timeout=0.05)
        with pytest.raises(
            TimeoutError, match=rf"2 subscriptions to '{topic}' and 3 servers of '{topic}'|2 sub.*3 ser"
        ):
            await bus.wait_for(topic, subscribers=2, servers=3, timeout=0.05)
        # The bus goes on, and the broker has forgotten them.
        async with bus.subscribe(topic) as messages:
            await bus.wait_for(topic, timeout=60)
            await bus.publish(topic, 1)
            assert (await messages.receive()).payload == 1


async def test_leading_wildcard_waits_for_nobody_of_the_brokers_own(connect: Connect) -> None:
    async with connect() as bus, bus.subscribe("$SYS.peer.joined"):
        await bus.wait_for("$SYS.>")
        with pytest.raises(TimeoutError):
            await bus.wait_for("*.peer.joined", timeout=0.05)


@pytest.mark.parametrize("count", [-1, 1.0, True, "1", 1 << 63])
async def test_number_that_is_none_is_refused(connect: Connect, count: Any) -> None:
    async with connect() as bus:
        with pytest.raises(ValueError, match="subscribers="):
            await bus.wait_for("a", subscribers=count)
        with pytest.raises(ValueError, match="servers="):
            await bus.wait_for("a", servers=count)
        with pytest.raises(InvalidTopic):
            await bus.wait_for("no topic")


async def test_waits_count_with_subscriptions(runtime: Runtime, transport: str) -> None:
    with BrokerProcess("--limit", "subscriptions=2") as broker:
        async with runtime.connect(broker.address(transport)) as bus:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await bus.wait_for("a", timeout=0.001)
            async with bus.subscribe("a"):
                await bus.wait_for("a")
                async with bus.subscribe("a"):
                    with pytest.raises(LimitExceeded, match="subscriptions = 2"):
                        await bus.wait_for("a")
                await bus.wait_for("a")


async def test_wait_ends_with_the_broker(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        async with runtime.connect(broker.address(transport), reconnect=None) as bus:

            async def wait() -> None:
                with pytest.raises(ConnectionLost):
                    await bus.wait_for("nobody")

            async def end() -> None:
                await page(bus)
                await runtime.in_thread(broker.kill)

            await runtime.gather(wait, end)


async def test_wait_goes_on_at_the_next_broker(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        async with runtime.connect(broker.address(transport)) as bus:

            async def restart() -> None:
                await page(bus)
                await runtime.in_thread(broker.kill)
                await runtime.in_thread(broker.start)
                async with runtime.connect(broker.unix) as other, other.subscribe("somebody"):
                    came.set()
                    await done.wait()

            async def wait() -> None:
                await bus.wait_for("somebody")
                assert came.is_set()
                done.set()

            came, done = runtime.event(), runtime.event()
            await runtime.gather(wait, restart)
