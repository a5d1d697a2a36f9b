"""How the publisher and the workers start, end and complain."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import trio

from sockbus import SockbusError
from sockbus.trio import Bus, connect

#: what is said here is for everybody: the work is done
OVER = "demo.over"
Work = Callable[[Bus], Awaitable[None]]


async def _until_over(name: str, address: str, work: Work) -> None:
    async with (
        connect(address, name=name) as bus,
        bus.subscribe(OVER) as over,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(work, bus)
        await over.receive()
        nursery.cancel_scope.cancel()


def run(name: str, address: str, work: Work) -> None:
    """Connect, and work until it is said that all is over. When the bus or a file fails: one line, exit code 1."""
    failure = None
    try:
        trio.run(_until_over, name, address, work)
    except* (SockbusError, OSError) as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        failure = f"{name}: {first}"
    sys.exit(failure)
