"""What the programs need besides their bus: to be told, to sleep, to do two things at once, to find the broker."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import trio

import sockbus.blocking
from sockbus import ConnectError, ConnectionLost
from sockbus.client.event_loop import EventLoopBus

from ..programs import Connect

__all__ = ["Told", "beside", "entered", "entered_blocking", "sleep"]

# Seconds until a broker that is not there is tried again.
_AGAIN = 0.05

Task = Callable[[], Awaitable[None]]


class Told:
    """Whether the process that measures has told this program to finish: its first order. The end of its orders is the
    end of this program, which then says nothing more.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for _ in sys.stdin:
            self._event.set()
        os._exit(1)

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it has been, or so long."""
        return self._event.wait(seconds)


def _is_trio(connect: Connect) -> bool:
    return connect.__module__.startswith("sockbus.trio")


async def sleep(connect: Connect, seconds: float) -> None:
    """In the runtime of ``connect``."""
    if _is_trio(connect):
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def beside(connect: Connect, main: Task, *others: Task) -> None:
    """Run the others until ``main`` is done."""
    if _is_trio(connect):
        async with trio.open_nursery() as nursery:
            for other in others:
                nursery.start_soon(other)
            await main()
            nursery.cancel_scope.cancel()
        return
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_made(other)) for other in others]
        await main()
        for task in tasks:
            task.cancel()


async def _made(task: Task) -> Any:
    return await task()


async def entered(stack: AsyncExitStack, connect: Connect, address: str) -> EventLoopBus:
    """A bus, as soon as there is a broker."""
    while True:
        try:
            return await stack.enter_async_context(connect(address))
        except (ConnectError, ConnectionLost):
            await sleep(connect, _AGAIN)


def entered_blocking(stack: ExitStack, address: str) -> sockbus.blocking.Bus:
    """The same without an event loop."""
    while True:
        try:
            return stack.enter_context(sockbus.blocking.connect(address))
        except (ConnectError, ConnectionLost):
            time.sleep(_AGAIN)
