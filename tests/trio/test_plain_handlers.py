"""Plain handlers, which the connection's reader runs: in the context of ``serve``, and without harm to the reader."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable

import pytest
import trio

from sockbus import Message
from sockbus.trio import connect

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


class Stop(BaseException):
    """Something that is no Exception, as KeyboardInterrupt is."""


async def test_plain_handler_runs_in_the_context_of_serve(address: str, topic: str) -> None:
    async with connect(address) as bus, trio.open_nursery() as nursery:
        WHO.set("serve")
        await nursery.start(bus.serve, topic, lambda _: WHO.get())
        WHO.set("somebody else")
        assert (await bus.request(topic)).payload == "serve"
        nursery.cancel_scope.cancel()


async def test_what_is_no_exception_comes_out_of_serve_and_the_bus_goes_on(address: str, topic: str) -> None:
    def stop(_: Message) -> None:
        raise Stop

    async with connect(address) as server, connect(address) as bus:
        served = trio.Event()

        async def serve() -> None:
            with pytest.raises(Stop):
                await server.serve(topic, stop, task_status=Started(served))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await served.wait()
            with pytest.raises(Exception, match="went away"):
                await bus.request(topic)
        async with server.subscribe(topic) as messages:
            await server.publish(topic, "on it goes")
            assert (await messages.receive()).payload == "on it goes"


class Started:
    """A ``task_status`` for a task that was not started by ``nursery.start``."""

    def __init__(self, event: trio.Event) -> None:
        self._event = event

    def started(self, value: object = None) -> None:
        """It is in force."""
        self._event.set()


async def test_awaitable_that_a_plain_handler_returns_is_awaited_in_a_task(address: str, topic: str) -> None:
    both = trio.Event()
    waiting = 0

    async def wait_for_both(payload: object) -> object:
        nonlocal waiting
        waiting += 1
        if waiting == 2:
            both.set()
        await both.wait()
        return payload

    def handler(request: Message) -> Awaitable[object]:
        return wait_for_both(request.payload)

    async with connect(address) as bus, trio.open_nursery() as nursery:
        await nursery.start(bus.serve, topic, handler)
        replies: list[object] = []

        async def ask(number: int) -> None:
            replies.append((await bus.request(topic, number)).payload)

        async with trio.open_nursery() as asking:
            asking.start_soon(ask, 1)
            asking.start_soon(ask, 2)
        assert sorted(map(str, replies)) == ["1", "2"]
        nursery.cancel_scope.cancel()
