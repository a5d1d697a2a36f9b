"""Serving: how many handlers run at once, who of several servers gets a request, and how many may wait."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import Message
from tests.brokers import BrokerProcess
from tests.contract.runtime import PATIENCE, Runtime
from tests.contract.status import first, page

Connect = Callable[..., Any]


def upper(request: Message) -> str:
    return str(request.payload).upper()


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_handlers_run_at_once_than_concurrency_allows(
    connect: Connect, runtime: Runtime, topic: str, concurrency: int
) -> None:
    running: list[int] = [0]
    most: list[int] = []

    async def handler(request: Message) -> Any:
        running[0] += 1
        most.append(running[0])
        for _ in range(3):
            await runtime.turn()
        running[0] -= 1
        return request.payload

    async with (
        connect() as bus,
        connect() as server,
        runtime.serving(server, topic, handler, concurrency=concurrency),
    ):
        asked = [functools.partial(bus.request, topic, number) for number in range(60)]
        replies = await runtime.gather(*asked)
    assert [reply.payload for reply in replies] == list(range(60))
    assert max(most) == concurrency


async def test_servers_share_the_load(connect: Connect, runtime: Runtime, topic: str) -> None:
    counts = [0, 0]

    def counting(which: int) -> Callable[[Message], Any]:
        async def handler(_: Message) -> int:
            counts[which] += 1
            await runtime.turn()
            return which

        return handler

    async with (
        connect() as bus,
        connect() as one,
        connect() as two,
        runtime.serving(one, topic, counting(0)),
        runtime.serving(two, "*", counting(1)),
    ):
        for _ in range(50):
            await runtime.gather(*[functools.partial(bus.request, topic) for _ in range(4)])
        assert sum(counts) == 200
        assert min(counts) >= 80, counts
        # With nobody busy they take turns.
        in_turn = [(await bus.request(topic)).payload for _ in range(6)]
        assert sorted(in_turn) == [0, 0, 0, 1, 1, 1]


async def test_request_goes_to_the_server_with_the_fewest_outstanding(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async def busy(_: Message) -> str:
        called.set()
        await release.wait()
        return "busy"

    async def ask_the_busy_one() -> None:
        replies.append((await bus.request(topic, timeout=None)).payload)

    async def ask_the_free_one() -> None:
        await called.wait()
        async with runtime.serving(two, topic, lambda _: "free"):
            for _ in range(20):
                replies.append((await bus.request(topic)).payload)  # noqa: PERF401  # one after the other
        release.set()

    called, release = runtime.event(), runtime.event()
    replies: list[str] = []
    async with connect() as bus, connect() as one, connect() as two, runtime.serving(one, topic, busy):
        await runtime.gather(ask_the_busy_one, ask_the_free_one)
    assert replies == ["free"] * 20 + ["busy"]


async def test_request_that_waited_is_answered_by_a_plain_handler_that_comes(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async def busy(_: Message) -> None:
        called.set()
        await never.wait()

    async def ask() -> None:
        replies.append((await bus.request(topic, "waited")).payload)

    called, never = runtime.event(), runtime.event()
    replies: list[str] = []
    async with (
        connect() as bus,
        connect() as one,
        connect() as two,
        runtime.serving(one, topic, busy, concurrency=1),
        runtime.during(functools.partial(bus.request, topic, timeout=PATIENCE)),
    ):
        await called.wait()
        async with runtime.during(ask):
            await page(bus)
            # The broker hands it over together with the news that this server is in force.
            async with runtime.serving(two, topic, upper):
                while not replies:
                    await runtime.turn()
    assert replies == ["WAITED"]


async def test_two_thousand_requests_at_once_are_each_answered(connect: Connect, runtime: Runtime, topic: str) -> None:
    async def handler(request: Message) -> Any:
        await runtime.turn()
        return [request.payload]

    async with connect() as bus, connect() as server, runtime.serving(server, topic, handler):
        asked = [functools.partial(bus.request, topic, number, timeout=PATIENCE) for number in range(2000)]
        replies = await runtime.gather(*asked)
    assert [reply.payload for reply in replies] == [[number] for number in range(2000)]


async def test_requests_beyond_pending_requests_wait_for_room(runtime: Runtime, transport: str) -> None:
    with BrokerProcess("--limit", "pending_requests=8") as broker:
        async with runtime.connect(broker.address(transport)) as bus, runtime.serving(bus, "t", upper):
            replies = await runtime.gather(*[functools.partial(bus.request, "t", "x", timeout=None)] * 100)
            assert [reply.payload for reply in replies] == ["X"] * 100
            assert first(await page(bus), "servers", "t")["concurrency"] == 8


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "many"])
async def test_concurrency_that_is_none_is_refused_and_the_bus_goes_on(
    connect: Connect, topic: str, concurrency: Any
) -> None:
    async with connect() as bus:
        with pytest.raises(ValueError, match="concurrency"):
            await bus.serve(topic, upper, concurrency=concurrency)
        await bus.flush()
