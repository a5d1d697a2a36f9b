"""What runs in the processes that a ``Crew`` starts: ``python -m benchmarks.programs MODULE FUNCTION
OPTIONS``.

The function gets the options, a JSON object, as keywords, answers once when it is ready, and then obeys
orders: objects, one a line. It waits for an order with everything else at rest, in every runtime alike. The
end of standard input is the end of the program, so that none outlives the process that started it. What goes
wrong is one line on stderr.

A program is written twice: with ``async def`` for the runtimes that have an event loop, and for the blocking one.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, final

import trio

import sockbus.asyncio
import sockbus.trio
from sockbus import SockbusError
from sockbus.client.event_loop import EventLoopBus

__all__ = ["RUNTIMES", "Connect", "Started", "answer", "orders", "run"]

#: what ``run`` knows; uvloop's loop, where it is installed, runs what is asyncio's
RUNTIMES = ("trio", "asyncio", "blocking", *(("uvloop",) if importlib.util.find_spec("uvloop") else ()))

Connect = Callable[[str], AbstractAsyncContextManager[EventLoopBus, None]]


def answer(value: object = None) -> None:
    """Tell the process that measures."""
    print(json.dumps(value), flush=True)


def orders() -> Iterator[dict[str, Any]]:
    """Say that this program is ready; orders as they come."""
    answer()
    for line in sys.stdin:
        yield json.loads(line)


@final
class Started:
    """A ``task_status`` that says that this program is ready."""

    def started(self, _: None = None, /) -> None:
        """The server is in force."""
        answer()


def run(
    runtime: str, program: Callable[..., Coroutine[Any, Any, None]], blocking: Callable[..., None], *arguments: object
) -> None:
    """Run ``program``, with the ``connect`` of its runtime in front of the arguments, or ``blocking`` without."""
    match runtime:
        case "trio":
            trio.run(program, sockbus.trio.connect, *arguments)
        case "asyncio":
            asyncio.run(program(sockbus.asyncio.connect, *arguments))
        case "uvloop":
            with asyncio.Runner(loop_factory=importlib.import_module("uvloop").new_event_loop) as runner:
                runner.run(program(sockbus.asyncio.connect, *arguments))
        case _:
            blocking(*arguments)


def _run(module: str, function: str, options: str) -> str | None:
    """Why it failed, if it did."""
    failure: str | None = None
    try:
        getattr(importlib.import_module(module), function)(**json.loads(options))
    except* (SockbusError, OSError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        failure = f"{type(error).__name__}: {error}"
    return failure


if __name__ == "__main__":
    sys.exit(_run(*sys.argv[1:]))
