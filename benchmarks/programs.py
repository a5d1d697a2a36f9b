"""What runs in the processes that a ``Crew`` starts: ``python -m benchmarks.programs MODULE FUNCTION
OPTIONS``.

The function gets the options, a JSON object, as keywords, answers once when it is ready, and then obeys
orders: objects of integers, one a line. The end of standard input is the end of the program, so that none
outlives the process that started it. What goes wrong is one line on stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator

import trio

from sockbus import SockbusError

__all__ = ["answer", "next_order", "orders"]

Order = dict[str, int]


def answer(value: object = None) -> None:
    """Tell the process that measures."""
    print(json.dumps(value), flush=True)


def orders() -> Iterator[Order]:
    """Orders as they come, for a program that may block."""
    answer()
    for line in sys.stdin:
        yield json.loads(line)


async def next_order() -> Order | None:
    """The next order, while other tasks run on; None when no more will come."""
    line = b""
    while not line.endswith(b"\n"):
        await trio.lowlevel.wait_readable(0)
        came = os.read(0, 4096)
        if not came:
            return None
        line += came
    order: Order = json.loads(line)
    return order


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
