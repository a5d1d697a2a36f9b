"""Requests, subscriptions, services, flushes and connections, cancelled at each of their checkpoints."""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from sockbus import Message, RemoteError, Reply
from sockbus.trio import Bus, connect
from tests.brokers import BrokerProcess
from tests.contract.status import fds_of, first, page, settled, until
from tests.trio.cancelling import at_every_checkpoint, cancelled_at

SEED = 20_241
LARGE = 150_000


@contextlib.asynccontextmanager
async def serving(bus: Bus, topic: str, handler: Callable[[Message], Any]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.serve, topic, handler)
        yield
        nursery.cancel_scope.cancel()


async def test_cancelled_request_leaves_no_reply_behind(address: str, topic: str) -> None:
    async def handler(request: Message) -> Any:
        await trio.lowlevel.checkpoint()
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

    async with connect(address) as bus, connect(address) as server, serving(server, topic, handler):
        for call in (ask, fail):
            for _ in range(20):
                assert await at_every_checkpoint(call) >= 1
        await until(bus, lambda found: first(found, "servers", topic)["outstanding"] == 0)
        await ask()
        assert (await page(bus))["fds"]["held"] == 0


async def test_place_of_a_request_that_was_given_up_goes_to_the_next(transport: str) -> None:
    limits = ("--limit", "pending_requests=1", "--limit", "call_window_bytes=1000")
    busy, release = trio.Event(), trio.Event()

    async def handler(_: Message) -> str:
        busy.set()
        await release.wait()
        return "answer"

    async def ask(scope: trio.CancelScope, payload: bytes) -> None:
        with scope:
            answers.append((await bus.request("t", payload, timeout=None)).payload)

    async def ask_twice_over() -> None:
        # It waits for its turn, and when that has come for room: there it is cancelled.
        assert await cancelled_at(2, functools.partial(bus.request, "t", timeout=None))

    answers: list[str] = []
    with BrokerProcess(*limits) as broker:
        address = broker.address(transport)
        async with (
            connect(address) as bus,
            connect(address) as server,
            serving(server, "t", handler),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(server.request, "t")
            await busy.wait()
            given_up = trio.CancelScope()
            nursery.start_soon(ask, given_up, b"x" * 2000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask_twice_over)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, trio.CancelScope(), b"")
            await trio.testing.wait_all_tasks_blocked()
            given_up.cancel()
            await trio.testing.wait_all_tasks_blocked()
            release.set()
    assert answers == ["answer"]


async def test_cancelled_subscribing_and_serving_leave_nothing_in_force(address: str, topic: str) -> None:
    async def subscribe() -> None:
        async with bus.subscribe(topic) as messages:
            await bus.publish(topic, "x")
            assert (await messages.receive()).payload == "x"

    async def serve() -> None:
        async with serving(bus, topic, lambda request: request.payload):
            assert (await bus.request(topic, "x")).payload == "x"

    async def nothing_is_left() -> None:
        found = await page(bus)
        assert first(found, "subscriptions", topic) == first(found, "servers", topic) == {}

    async with connect(address) as bus:
        for call in (subscribe, serve):
            for _ in range(10):
                assert await at_every_checkpoint(call, nothing_is_left) >= 2
            await call()


async def test_cancelled_flush_can_be_asked_for_again(address: str, topic: str) -> None:
    async with connect(address) as bus, connect(address) as taker, taker.subscribe(topic, capacity=1) as messages:
        for number in range(3):
            await bus.publish(topic, number)
        for _ in range(5):
            assert await cancelled_at(1, bus.flush)
        for number in range(3):
            assert (await messages.receive()).payload == number
        await bus.flush()
        assert await at_every_checkpoint(bus.flush) >= 1


async def use(address: str, topic: str) -> None:
    async with connect(address) as bus, bus.subscribe(topic) as messages:
        await bus.publish(topic, "x")
        assert (await messages.receive()).payload == "x"


async def test_cancelled_connecting_and_leaving_close_the_connection(
    address: str, topic: str, common_broker: BrokerProcess
) -> None:
    here, there = fds_of(os.getpid()), fds_of(common_broker.pid)
    for _ in range(10):
        assert await at_every_checkpoint(functools.partial(use, address, topic)) >= 4
        assert settled(lambda: fds_of(os.getpid()), here) == here
    assert settled(lambda: fds_of(common_broker.pid), there) == there
    await use(address, topic)


async def test_cancelled_at_random_everywhere_the_bus_goes_on(address: str, topic: str) -> None:
    choose = random.Random(SEED)

    async def echo(request: Message) -> Any:
        await trio.lowlevel.checkpoint()
        return request.payload

    async def enter() -> None:
        async with bus.subscribe(topic) as messages:
            await bus.publish(topic, "to myself")
            await messages.receive()

    async with connect(address) as bus, serving(bus, f"{topic}.echo", echo):
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
                    await cancelled_at(choose.randrange(1, 6), choose.choice(calls))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(stir)
        assert (await bus.request(f"{topic}.echo", "still")).payload == "still"
        await enter()
        assert first(await page(bus), "subscriptions", topic) == {}
