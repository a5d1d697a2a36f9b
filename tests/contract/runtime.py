"""What the contract's tests need of a runtime besides its bus: tasks, turns, and a limit on patience.

Every runtime offers the same ``connect`` and the same verbs, so a test of the contract is written once, as an ``async
def`` that takes what it needs from the fixtures of ``conftest.py``. A runtime that is not Trio gets a class beside
``TrioRuntime`` here and a name in ``RUNTIMES``; nothing in the tests themselves names one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import trio

import sockbus.trio

__all__ = ["PATIENCE", "RUNTIMES", "Runtime", "limited"]

#: seconds after which what would hang fails instead
PATIENCE = 120.0

Call = Callable[[], Awaitable[Any]]


class Runtime(Protocol):
    """One way of waiting."""

    name: str
    #: ``sockbus.RUNTIME.connect``
    connect: Callable[..., Any]

    async def gather(self, *calls: Call) -> list[Any]:
        """Make all calls at once and give their results in order."""

    def during(self, *calls: Call) -> contextlib.AbstractAsyncContextManager[None]:
        """Run calls beside a block, and cancel them at its end."""

    def serving(
        self, bus: Any, pattern: str, handler: Callable[..., Any], **options: Any
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Serve a pattern for as long as a block lasts; in force when it begins."""

    def event(self) -> Any:
        """An object with ``set`` and an awaitable ``wait``."""

    async def turn(self) -> None:
        """Let every other task run once."""

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """Make a call that blocks."""


class TrioRuntime:
    """Trio."""

    name = "trio"
    connect = staticmethod(sockbus.trio.connect)
    event = staticmethod(trio.Event)

    async def gather(self, *calls: Call) -> list[Any]:
        results: list[Any] = [None] * len(calls)

        async def run(index: int, call: Call) -> None:
            results[index] = await call()

        async with trio.open_nursery() as nursery:
            for index, call in enumerate(calls):
                nursery.start_soon(run, index, call)
        return results

    @contextlib.asynccontextmanager
    async def during(self, *calls: Call) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)
            yield
            nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def serving(self, bus: Any, pattern: str, handler: Callable[..., Any], **options: Any) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(functools.partial(bus.serve, pattern, handler, **options))
            yield
            nursery.cancel_scope.cancel()

    async def turn(self) -> None:
        await trio.lowlevel.checkpoint()

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(call)


RUNTIMES: dict[str, Runtime] = {"trio": TrioRuntime()}


def limited(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The test, failing when it takes longer than ``PATIENCE``."""

    @functools.wraps(test)
    async def run(**values: Any) -> None:
        with trio.fail_after(PATIENCE):
            await test(**values)

    return run
