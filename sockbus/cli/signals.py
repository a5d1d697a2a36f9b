"""Running the broker until it is done or signals end it.

A signal stops it at a place where that is expected, instead of raising KeyboardInterrupt in the middle of anything.
What is cleaned up then must not hang either: one signal more than there is to do ends the process as the system does
it.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import trio

__all__ = ["run"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(work: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
    """Run ``work``. The first signal calls ``stop``, the next one cancels."""
    trio.run(_run, work, stop)


async def _run(work: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
    token = trio.lowlevel.current_trio_token()
    scope = trio.CancelScope()
    actions: list[Callable[[], object]] = [stop, scope.cancel]
    is_ending = False

    def act() -> None:
        nonlocal is_ending
        is_ending = True
        if actions:
            actions.pop(0)()
        if not actions:
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_DFL)

    def came(_: int, __: FrameType | None) -> None:
        # Between any two instructions of anything: only this may be called here.
        token.run_sync_soon(act)

    before = {number: signal.signal(number, came) for number in _SIGNALS}
    try:
        with scope:
            await work()
    finally:
        for number, handler in before.items():
            # Once told to end, this process is ending: one more signal must not spoil its exit code.
            signal.signal(number, signal.SIG_IGN if is_ending else handler)
