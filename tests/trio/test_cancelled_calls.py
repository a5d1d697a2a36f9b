"""A request that is cancelled where it waits, exactly: the contract has the rest."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio
import trio.testing

from sockbus import Message
from sockbus.trio import Bus, connect
from tests.brokers import BrokerProcess
from tests.contract.cancelling import cancelled_in_trio


@contextlib.asynccontextmanager
async def serving(bus: Bus, topic: str, handler: Callable[[Message], Any]) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.serve, topic, handler)
        yield
        nursery.cancel_scope.cancel()


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
        assert await cancelled_in_trio(2, functools.partial(bus.request, "t", timeout=None))

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
