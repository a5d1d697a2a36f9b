"""Cancelling a call exactly at its first, second, … wait, which no deadline can do with real sockets.

For runtimes that cancel; what interrupts the blocking one is tried in tests/blocking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import trio

__all__ = ["at_every_wait", "cancelled_in_asyncio", "cancelled_in_trio"]

Call = Callable[[], Awaitable[object]]
CancelledAt = Callable[[int, Call], Awaitable[bool]]

# More waits than any call here has.
MOST = 60


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope when a task has let go for the ``count``-th time since."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, count: int) -> None:
        self._task = task
        self._scope = scope
        self._left = count

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if not self._left:
                self._scope.cancel()


async def cancelled_in_trio(count: int, call: Call) -> bool:
    """Make a call and cancel it at its ``count``-th checkpoint; whether it was cancelled there."""
    with trio.CancelScope() as scope:
        instrument = _CancelAt(trio.lowlevel.current_task(), scope, count)
        trio.lowlevel.add_instrument(instrument)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


class _Stepped:
    """A coroutine whose task is cancelled when it lets go for the ``count``-th time."""

    def __init__(self, made: Coroutine[Any, Any, object], count: int) -> None:
        self._made = made
        self._left = count

    def __await__(self) -> Generator[Any, Any, object]:
        step: Callable[[], Any] = lambda: self._made.send(None)  # noqa: E731  # it changes
        while True:
            try:
                waited_for = step()
            except StopIteration as done:
                return done.value
            self._left -= 1
            task = asyncio.current_task()
            if not self._left and task is not None:
                task.cancel()
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001  # it goes on into the coroutine
                step = _throwing(self._made, error)
            else:
                step = lambda: self._made.send(None)  # noqa: E731  # as above


def _throwing(made: Coroutine[Any, Any, object], error: BaseException) -> Callable[[], Any]:
    return lambda: made.throw(error)


async def _run(call: Call) -> object:
    return await call()


async def cancelled_in_asyncio(count: int, call: Call) -> bool:
    """Make a call in a task and cancel it at its ``count``-th wait; whether it was cancelled there."""

    async def run() -> None:
        await _Stepped(_run(call), count)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    return False


async def at_every_wait(cancelled_at: CancelledAt, call: Call, after: Call | None = None) -> int:
    """Cancel a call at its first wait, at its second, … until one returns; how many were cancelled."""
    for count in range(1, MOST):
        was_cancelled = await cancelled_at(count, call)
        if after is not None:
            await after()
        if not was_cancelled:
            return count - 1
    raise AssertionError(f"the call has more than {MOST} waits")
