"""Scenarios of a fork in a handler."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import sockbus
from sockbus.blocking import connect
from tests.processes.child import Child, complaint
from tests.processes.runtimes import plain
from tests.processes.scenario import Place, scenario
from tests.processes.using import is_clear

REQUESTS = 5


class Enough(BaseException):
    """The last request was served."""


def requester(place: Place) -> Child:
    """A process that was forked before anybody connected: the replies to its requests."""
    child = Child()
    if child.pid:
        return child
    with connect(place.address) as bus:
        replies = []
        for number in range(REQUESTS):
            while True:
                try:
                    replies.append(bus.request(place.topic, number).payload)
                except sockbus.NoResponders:
                    continue
                except sockbus.RequestError as error:
                    replies.append(str(error))
                break
        child.say(replies)
    os._exit(0)


async def serve(place: Place, handler: Callable[[Any, list[str]], Any], *, is_async: bool, complaints: int) -> None:
    """Serve until all requests came; it forks at the second, and in the child the handler is called, which notes what
    the bus has to say.
    """
    asking = requester(place)
    forked: list[Child] = []
    heard: list[str] = []

    def plain_handler(request: Any) -> Any:
        if request.payload == 1:
            forked.append(Child())
            if not forked[0].pid:
                return handler(bus, heard)
        if request.payload == REQUESTS - 1:
            raise Enough
        return request.payload

    async def async_handler(request: Any) -> Any:
        found = plain_handler(request)
        return found if isinstance(found, int) else await found

    said = "serve raised nothing"
    async with place.connect() as bus:
        try:
            # One at once: a blocking bus has threads for more, and such a thread would be all that the child has.
            await bus.serve(place.topic, async_handler if is_async else plain_handler, concurrency=1)
        except (Enough, BaseExceptionGroup) as ended:
            # An event loop's tasks are a group.
            said = "enough" if isinstance(ended, Enough) or ended.subgroup(Enough) else repr(ended)
        except sockbus.ConnectionLost as error:
            said = str(error)
        if forked and not forked[0].pid:
            forked[0].say([said, *heard])
            os._exit(0)
    assert said == "enough"
    found = forked[0].end()
    assert len(found) == 1 + complaints
    assert all(is_clear(text, os.getpid()) for text in found), found
    replies = asking.end()
    assert replies[:-1] == list(range(REQUESTS - 1)), replies


@scenario()
async def handler_that_forks_and_returns(place: Place) -> None:
    """The reply is the parent's alone."""
    await serve(place, lambda bus, heard: "the child's", is_async=False, complaints=0)


@scenario(runtimes=("blocking",))
async def handler_that_forks_and_uses_the_bus(place: Place) -> None:
    def handler(bus: Any, heard: list[str]) -> Any:
        for call in (plain(bus).publish, plain(bus).request):
            try:
                call(place.topic)
            except sockbus.ConnectionLost as error:
                heard.append(str(error))
        return "the child's"

    await serve(place, handler, is_async=False, complaints=2)


@scenario(runtimes=("trio", "asyncio"))
async def async_handler_that_forks_and_returns(place: Place) -> None:
    async def handler(bus: Any, heard: list[str]) -> Any:
        return "the child's"

    await serve(place, handler, is_async=True, complaints=0)


@scenario(runtimes=("trio", "asyncio"))
async def async_handler_that_forks_and_uses_the_bus(place: Place) -> None:
    async def handler(bus: Any, heard: list[str]) -> Any:
        heard.append(await complaint(bus.publish, place.topic))
        heard.append(await complaint(bus.request, place.topic))
        return "the child's"

    await serve(place, handler, is_async=True, complaints=2)
