"""A program that answers each request with what was asked, until it is told to finish."""

from __future__ import annotations

import threading
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from sockbus import ConnectionLost, Message

from ..programs import Connect, Started, run
from .loops import Told, beside, entered, entered_blocking, sleep

__all__ = ["serve"]

_LOOK = 0.02


def serve(runtime: str, **options: Any) -> None:
    """Until told to finish; answers when in force."""
    run(runtime, _serve, _serve_blocking, options)


def _echo(request: Message) -> object:
    return request.payload


async def _serve(connect: Connect, options: dict[str, Any]) -> None:
    told = Told()

    async def wait() -> None:
        while not told:
            await sleep(connect, _LOOK)

    async def answer_requests() -> None:
        await bus.serve("echo", _echo, task_status=Started())

    async with AsyncExitStack() as stack:
        bus = await entered(stack, connect, options["address"])
        await beside(connect, wait, answer_requests)


def _serve_blocking(options: dict[str, Any]) -> None:
    told = Told()

    def answer_requests() -> None:
        try:
            bus.serve("echo", _echo, task_status=Started())
        except ConnectionLost:
            if not told:
                raise

    with ExitStack() as stack:
        bus = entered_blocking(stack, options["address"])
        thread = threading.Thread(target=answer_requests)
        thread.start()
        told.wait(threading.TIMEOUT_MAX)
    thread.join()
