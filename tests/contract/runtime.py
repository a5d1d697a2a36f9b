"""What the contract's tests need of a runtime besides its bus: tasks, turns, and a limit on patience.

Every runtime offers the same ``connect`` and the same verbs, so a test of the contract is written once, as an ``async
def`` that takes what it needs from the fixtures of ``conftest.py``. A runtime that is not Trio gets a class beside
``TrioRuntime`` here and a name in ``RUNTIMES``; nothing in the tests themselves names one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol

import trio

import sockbus.asyncio
import sockbus.trio
from tests.contract import in_threads
from tests.contract.cancelling import cancelled_in_asyncio, cancelled_in_trio

__all__ = ["EVENT_LOOPS", "PATIENCE", "RUNTIMES", "Runtime", "TrioRuntime"]

#: seconds after which what would hang fails instead
PATIENCE = 120.0

Call = Callable[[], Awaitable[Any]]
Test = Callable[..., Coroutine[Any, Any, None]]


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

    async def cancelled_at(self, count: int, call: Call) -> bool:
        """Make a call and cancel it at its ``count``-th wait; whether it was cancelled there."""

    def limited(self, test: Test) -> Callable[..., Any]:
        """The test as pytest runs it, failing when it takes longer than ``PATIENCE``."""


class TrioRuntime:
    """Trio."""

    name = "trio"
    connect = staticmethod(sockbus.trio.connect)
    event = staticmethod(trio.Event)
    cancelled_at = staticmethod(cancelled_in_trio)

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

    @staticmethod
    def limited(test: Test) -> Callable[..., Any]:
        @functools.wraps(test)
        async def run(**values: Any) -> None:
            with trio.fail_after(PATIENCE):
                await test(**values)

        return run


class AsyncioRuntime:
    """asyncio, with the event loop of CPython or another one."""

    connect = staticmethod(sockbus.asyncio.connect)
    event = staticmethod(asyncio.Event)
    cancelled_at = staticmethod(cancelled_in_asyncio)

    def __init__(self, name: str, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self.name = name
        self._new_loop = new_loop

    async def gather(self, *calls: Call) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_await(call)) for call in calls]
        return [task.result() for task in tasks]

    @contextlib.asynccontextmanager
    async def during(self, *calls: Call) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_await(call)) for call in calls]
            yield
            for task in tasks:
                task.cancel()

    @contextlib.asynccontextmanager
    async def serving(self, bus: Any, pattern: str, handler: Callable[..., Any], **options: Any) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            in_force = asyncio.Event()
            task = group.create_task(bus.serve(pattern, handler, task_status=in_force, **options))
            waiting = asyncio.ensure_future(in_force.wait())
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not task.done():
                yield
                task.cancel()

    async def turn(self) -> None:
        await asyncio.sleep(0)

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(call)

    def limited(self, test: Test) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(**values: Any) -> None:
            with asyncio.Runner(loop_factory=self._new_loop) as runner:
                runner.run(asyncio.wait_for(test(**values), PATIENCE))

        return run


class BlockingRuntime(TrioRuntime):
    """No event loop: every call in a thread, which the tests await in Trio's."""

    name = "blocking"
    connect = staticmethod(in_threads.connect)  # type: ignore[assignment]  # the tests see the same of it
    serving = staticmethod(in_threads.serving)


async def _await(call: Call) -> Any:
    return await call()


#: runtimes that cancel
EVENT_LOOPS = ("trio", "asyncio")
RUNTIMES: dict[str, Runtime] = {
    "trio": TrioRuntime(),
    "asyncio": AsyncioRuntime("asyncio"),
    "blocking": BlockingRuntime(),
}
