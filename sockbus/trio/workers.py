"""Running the handler of one service: an async one in as many tasks as it needs at once, a plain one in the reader."""

from __future__ import annotations

import contextvars
import inspect
import math
from typing import Any, final

import trio

from ..client.answering import Answering, Handler
from ..client.event_loop import EventLoopClient
from ..message import Message
from ..protocol.mailbox import Called, Service, no_wake

__all__ = ["Workers"]


@final
class Workers:
    """Up to ``service.concurrency`` tasks at one handler, idle ones parked and woken by the reader directly."""

    def __init__(self, waits: EventLoopClient, service: Service, handler: Handler) -> None:
        self._waits = waits
        self._drive = waits.drive
        self._service = service
        self._answering = Answering(waits, service, handler)
        self._count = 0
        # The reader defers Ctrl-C; a handler that computes must be stopped by it all the same.
        self._unprotected = trio.lowlevel.disable_ki_protection(_call)
        self._context = contextvars.copy_context()
        self._fault: BaseException | None = None

    async def run(self) -> None:
        """Until cancelled, or the session has ended."""
        async with trio.open_nursery() as self._nursery:
            self._service.wake = self._wake
            try:
                self._wake()
                # Requests that came with the news that this is in force were answered just now, and not by the reader.
                self._waits.flush_urgent()
                await trio.sleep(math.inf)
            finally:
                # A nursery that has closed takes no tasks; what still comes is thrown away with the service.
                self._service.wake = no_wake
        if self._fault is not None:
            raise self._fault

    def _wake(self) -> None:
        if self._waits.error is not None or self._service.error is not None:
            self._nursery.cancel_scope.cancel()
            return
        if self._answering.is_plain:
            self._run_plain()
            return
        waiting = len(self._service.queue)
        woken = self._answering.idle.open(waiting)
        for _ in range(min(waiting - woken, self._service.concurrency - self._count)):
            self._count += 1
            self._nursery.start_soon(self._work)

    def _run_plain(self) -> None:
        if self._fault is None:
            self._fault = self._answering.run_plain(self._call, self._go_on_later)
        if self._fault is not None:
            self._nursery.cancel_scope.cancel()

    def _call(self, call: Called, request: Message) -> Any:
        return self._context.run(self._unprotected, self._answering, call, request)

    def _go_on_later(self, call: Called, request: Message, reply: Any) -> None:
        self._nursery.start_soon(self._go_on, call, request, reply)

    async def _go_on(self, call: Called, request: Message, reply: Any) -> None:
        with request:
            if inspect.isawaitable(reply):
                reply = await self._answering.settle(call, reply)
            await self._drive(self._answering.answer(call, reply))

    async def _work(self) -> None:
        queue = self._service.queue
        while True:
            taken = queue.popleft() if queue else await self._drive(self._answering.next())
            if taken is None:
                return
            await self._go_on(*taken, self._answering.call(*taken))


def _call(answering: Answering, call: Called, request: Message) -> Any:
    return answering.call(call, request)
