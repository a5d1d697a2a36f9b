"""``sockbus.blocking`` as the contract's tests see it: each call is made in a thread of its own, and awaited.

So the tests are the same for all runtimes, and the blocking one is used from many threads at once. A call that is
cancelled is left to its thread, and ends with its bus; one that takes or publishes returns every now and then (it has
a ``timeout``), so that a cancelled one takes nothing away from the next.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self
from weakref import WeakKeyDictionary

import trio

import sockbus.blocking
from sockbus.blocking.workers import Workers
from sockbus.client.standing import Seen

__all__ = ["connect"]

# Seconds after which a call returns to see whether it was cancelled.
SLICE = 0.2
_limiter = trio.CapacityLimiter(10_000)


async def in_thread(call: Callable[..., Any], *arguments: Any, abandon: bool = True, **options: Any) -> Any:
    """Make a call in a thread."""
    made = functools.partial(call, *arguments, **options)
    return await trio.to_thread.run_sync(made, abandon_on_cancel=abandon, limiter=_limiter)


async def in_slices(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Make a call that nothing has come of when it ends with TimeoutError, again and again."""
    while True:
        try:
            return await in_thread(call, *arguments, abandon=False, timeout=SLICE, **options)
        except TimeoutError:
            await trio.lowlevel.checkpoint()


class connect:  # noqa: N801  # as it is called everywhere
    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._connecting = sockbus.blocking.connect(*arguments, **options)

    async def __aenter__(self) -> Bus:
        return Bus(await in_thread(self._connecting.__enter__, abandon=False))

    async def __aexit__(self, *left: object) -> None:
        with trio.CancelScope(shield=True):
            await in_thread(self._connecting.__exit__, *left)


class Bus:
    def __init__(self, bus: sockbus.blocking.Bus) -> None:
        self._bus = bus
        # What the bus keeps for each thread, for each task: its calls are made in many threads.
        self._seen: WeakKeyDictionary[trio.lowlevel.Task, Seen] = WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def __repr__(self) -> str:
        return repr(self._bus)

    async def publish(self, *arguments: Any, **options: Any) -> Any:
        if options.get("receipt") or options.get("retain"):
            return await in_thread(self._bus.publish, *arguments, **options)
        return await in_slices(self._bus.publish, *arguments, **options)

    async def flush(self) -> None:
        await in_slices(self._bus.flush)

    async def drain(self) -> None:
        await in_thread(self._bus.drain)

    @property
    def state(self) -> Any:
        state = self._bus.state
        self._seen[trio.lowlevel.current_task()] = self._bus._seen.last
        return state

    async def state_changed(self) -> Any:
        task = trio.lowlevel.current_task()

        def state_changed(*, timeout: float) -> Any:
            self._bus._seen.last = self._seen.get(task, self._bus._waits.standing.now)
            state = self._bus.state_changed(timeout=timeout)
            self._seen[task] = self._bus._seen.last
            return state

        return await in_slices(state_changed)

    def subscribe(self, *arguments: Any, **options: Any) -> Subscription:
        return Subscription(self._bus.subscribe(*arguments, **options))

    async def wait_for(self, *arguments: Any, timeout: float | None = None, **options: Any) -> None:
        if timeout is not None:
            await in_thread(self._bus.wait_for, *arguments, timeout=timeout, **options)
        else:
            await in_slices(self._bus.wait_for, *arguments, **options)

    async def request(self, *arguments: Any, **options: Any) -> Any:
        return await in_thread(self._bus.request, *arguments, **options)

    async def serve(
        self, pattern: str, handler: Callable[..., Any], *, concurrency: int = 64, task_status: Any = None
    ) -> None:
        handlers = Handlers(self._bus, handler)
        workers = Workers(self._bus._waits, handlers.call)
        ended = Told()

        def serve() -> None:
            try:
                workers.serve(pattern, concurrency, task_status, None)
            except Stopped:
                self._bus._client.check()
            finally:
                ended.started()

        try:
            await in_thread(serve)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await in_thread(workers.stop)
                handlers.cancel()
                await ended.event.wait()
            raise


class Stopped(BaseException):
    """What a handler raises in its thread that was cancelled in the tests' loop."""


class Handlers:
    """Runs an async handler in the loop of the tests, for threads that wait for it, until the session has ended."""

    def __init__(self, bus: sockbus.blocking.Bus, handler: Callable[..., Any]) -> None:
        self._client = bus._client
        self._handler = handler
        self._is_async = inspect.iscoroutinefunction(handler)
        self._token = trio.lowlevel.current_trio_token()
        self._scopes: set[trio.CancelScope] = set()
        self._cancelled = False
        trio.lowlevel.spawn_system_task(self._watch)

    def call(self, request: Any) -> Any:
        if not self._is_async:
            return self._handler(request)
        return trio.from_thread.run(self._run, request, trio_token=self._token)

    async def _run(self, request: Any) -> Any:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self._cancelled:
                    return await self._handler(request)
            finally:
                self._scopes.discard(scope)
        raise Stopped

    async def _watch(self) -> None:
        while self._client.error is None and not self._cancelled:  # noqa: ASYNC110  # a thread of nobody's sets it
            await trio.sleep(SLICE)
        self.cancel()

    def cancel(self) -> None:
        self._cancelled = True
        for scope in self._scopes:
            scope.cancel()


class Subscription:
    def __init__(self, subscription: sockbus.blocking.Subscription) -> None:
        self._subscription = subscription

    @property
    def interrupted(self) -> int:
        return self._subscription.interrupted

    @property
    def lost(self) -> int:
        return self._subscription.lost

    async def __aenter__(self) -> Self:
        await in_thread(self._subscription.__enter__, abandon=False)
        return self

    async def __aexit__(self, *left: object) -> None:
        with trio.CancelScope(shield=True):
            await in_thread(self._subscription.__exit__, *left)

    def __aiter__(self) -> AsyncIterator[Any]:
        return Iteration(iter(self._subscription))

    async def receive(self) -> Any:
        return await in_slices(self._subscription.receive)

    def batches(self) -> AsyncIterator[Any]:
        return Iteration(iter(self._subscription.batches()))


class Iteration:
    """An iterator of the blocking runtime."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> Iteration:
        return self

    async def __anext__(self) -> Any:
        done = object()
        found = await in_thread(next, self._iterator, done)
        if found is done:
            raise StopAsyncIteration
        return found


@contextlib.asynccontextmanager
async def serving(bus: Bus, pattern: str, handler: Callable[..., Any], **options: Any) -> AsyncIterator[None]:
    """Serve for as long as a block lasts."""
    async with trio.open_nursery() as nursery:
        in_force = Told()
        nursery.start_soon(functools.partial(bus.serve, pattern, handler, task_status=in_force, **options))
        await in_force.event.wait()
        yield
        nursery.cancel_scope.cancel()


class Told:
    """A ``task_status`` that is told from a thread."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def started(self, value: object = None) -> None:
        self._token.run_sync_soon(self.event.set)
