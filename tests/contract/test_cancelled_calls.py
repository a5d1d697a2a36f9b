"""Requests, subscriptions, services, flushes and connections, cancelled at each of their waits."""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sockbus import Message, RemoteError, Reply
from tests.brokers import BrokerProcess
from tests.contract.cancelling import at_every_wait
from tests.contract.runtime import EVENT_LOOPS, Runtime
from tests.contract.status import fds_of, first, page, settled, until

Connect = Callable[..., Any]

pytestmark = pytest.mark.parametrize("runtime", EVENT_LOOPS, indirect=True)

SEED = 20_241
LARGE = 150_000


async def test_cancelled_request_leaves_no_reply_behind(connect: Connect, runtime: Runtime, topic: str) -> None:
    async def handler(request: Message) -> Any:
        await runtime.turn()
        if request.payload == "fail":
            raise ValueError("as asked")
        fds = [fd.fileno() for fd in request.fds]
        return Reply([request.payload, b"y" * LARGE], fds=fds)

    async def ask() -> None:
        fds = [0] if bus.transport != "tcp" else []
        with await bus.request(topic, "ask", fds=fds) as reply:
            assert (reply.payload[0], len(reply.fds)) == ("ask", len(fds))

    async def fail() -> None:
        with pytest.raises(RemoteError):
            await bus.request(topic, "fail")

    async with connect() as bus, connect() as server, runtime.serving(server, topic, handler):
        for call in (ask, fail):
            for _ in range(20):
                assert await at_every_wait(runtime.cancelled_at, call) >= 1
        await until(bus, lambda found: first(found, "servers", topic)["outstanding"] == 0)
        await ask()
        assert (await page(bus))["fds"]["held"] == 0


async def test_cancelled_subscribing_and_serving_leave_nothing_in_force(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async def subscribe() -> None:
        async with bus.subscribe(topic) as messages:
            await bus.publish(topic, "x")
            assert (await messages.receive()).payload == "x"

    async def serve() -> None:
        async with runtime.serving(bus, topic, lambda request: request.payload):
            assert (await bus.request(topic, "x")).payload == "x"

    async def nothing_is_left() -> None:
        found = await page(bus)
        assert first(found, "subscriptions", topic) == first(found, "servers", topic) == {}

    async with connect() as bus:
        for call in (subscribe, serve):
            for _ in range(10):
                assert await at_every_wait(runtime.cancelled_at, call, nothing_is_left) >= 2
            await call()


async def test_cancelled_flush_can_be_asked_for_again(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic, capacity=1, stall=1e9) as messages:
        for number in range(3):
            await bus.publish(topic, number)
        for _ in range(5):
            assert await runtime.cancelled_at(1, bus.flush)
        for number in range(3):
            assert (await messages.receive()).payload == number
        await bus.flush()
        assert await at_every_wait(runtime.cancelled_at, bus.flush) >= 1


async def use(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        await bus.publish(topic, "x")
        assert (await messages.receive()).payload == "x"


async def test_cancelled_connecting_and_leaving_close_the_connection(
    connect: Connect, runtime: Runtime, topic: str, common_broker: BrokerProcess
) -> None:
    here, there = fds_of(os.getpid()), fds_of(common_broker.pid)
    for _ in range(10):
        assert await at_every_wait(runtime.cancelled_at, functools.partial(use, connect, topic)) >= 4
        assert settled(lambda: fds_of(os.getpid()), here) == here
    assert settled(lambda: fds_of(common_broker.pid), there) == there
    await use(connect, topic)


async def test_cancelled_at_random_everywhere_the_bus_goes_on(connect: Connect, runtime: Runtime, topic: str) -> None:
    choose = random.Random(SEED)

    async def echo(request: Message) -> Any:
        await runtime.turn()
        return request.payload

    async def enter() -> None:
        async with bus.subscribe(topic) as messages:
            await bus.publish(topic, "to myself")
            await messages.receive()

    async with connect() as bus, runtime.serving(bus, f"{topic}.echo", echo):
        calls: list[Callable[[], Awaitable[object]]] = [
            enter,
            bus.flush,
            lambda: bus.publish(topic, b"x" * LARGE, receipt=True),
            lambda: bus.request(f"{topic}.echo", b"y" * LARGE),
            lambda: bus.request(f"{topic}.nobody"),
        ]

        async def stir() -> None:
            for _ in range(100):
                with contextlib.suppress(Exception):
                    await runtime.cancelled_at(choose.randrange(1, 6), choose.choice(calls))

        await runtime.gather(*[stir] * 8)
        assert (await bus.request(f"{topic}.echo", "still")).payload == "still"
        await enter()
        assert first(await page(bus), "subscriptions", topic) == {}
