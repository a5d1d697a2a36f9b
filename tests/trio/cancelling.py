"""Cancelling a call exactly at its first, second, … checkpoint, which no deadline can do with real sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

__all__ = ["at_every_checkpoint", "cancelled_at"]

# More checkpoints than any call here has.
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


async def cancelled_at(count: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call and cancel it at its ``count``-th checkpoint; whether it was cancelled there."""
    with trio.CancelScope() as scope:
        instrument = _CancelAt(trio.lowlevel.current_task(), scope, count)
        trio.lowlevel.add_instrument(instrument)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def at_every_checkpoint(
    call: Callable[[], Awaitable[object]], after: Callable[[], Awaitable[object]] | None = None
) -> int:
    """Cancel a call at its first checkpoint, at its second, … until one returns; how many were cancelled."""
    for count in range(1, MOST):
        was_cancelled = await cancelled_at(count, call)
        if after is not None:
            await after()
        if not was_cancelled:
            return count - 1
    raise AssertionError(f"the call has more than {MOST} checkpoints")
