"""Running the handler of one service: an async one in as many tasks as it needs at once, a plain one in the reader."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable
from typing import Any, final

from ..client.answering import Answering, Handler
from ..client.event_loop import EventLoopClient
from ..message import Message
from ..protocol.mailbox import Called, Service, no_wake
from ..protocol.sender import Outgoing

__all__ = ["Workers"]


@final
class Workers:
    """Up to ``service.concurrency`` tasks at one handler, idle ones parked and woken by the reader directly."""

    def __init__(self, waits: EventLoopClient, service: Service, handler: Handler) -> None:
        self._waits = waits
        self._drive = waits.drive
        self._service = service
        self._answering = Answering(waits, service, handler)
        self._context = contextvars.copy_context()
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fault: BaseException | None = None
        self._ending = False

    async def run(self) -> None:
        """Until cancelled, or the session has ended."""
        async with asyncio.TaskGroup() as self._group:
            self._service.wake = self._wake
            try:
                self._wake()
                # Requests that came with the news that this is in force were answered just now, and not by the reader.
                self._waits.flush_urgent()
                await self._over
            finally:
                # A group that ends takes no tasks; what still comes is thrown away with the service.
                self._service.wake = no_wake
                self._ending = True
                for task in self._tasks:
                    task.cancel()
        if self._fault is not None:
            raise self._fault

    def _end(self, fault: BaseException | None = None) -> None:
        self._fault = self._fault or fault
        if not self._over.done():
            self._over.set_result(None)

    def _start(self, work: Any) -> None:
        task = self._group.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _wake(self) -> None:
        if self._waits.error is not None or self._service.error is not None or self._over.done():
            self._end()
            return
        if self._answering.is_plain:
            fault = self._answering.run_plain(self._call, self._go_on_later)
            if fault is not None:
                self._end(fault)
            return
        waiting = len(self._service.queue)
        woken = self._answering.idle.open(waiting)
        for _ in range(min(waiting - woken, self._service.concurrency - self._count)):
            self._count += 1
            self._start(self._work())

    def _call(self, call: Called, request: Message) -> Any:
        return self._context.run(self._answering.call, call, request)

    def _go_on_later(self, call: Called, request: Message, reply: Any) -> None:
        self._start(self._go_on(call, request, reply))

    async def _go_on(self, call: Called, request: Message, reply: Any) -> None:
        try:
            with request:
                if inspect.isawaitable(reply):
                    reply = await self._settle(call, reply)
                await self._drive(self._answering.answer(call, reply))
        except asyncio.CancelledError:
            raise
        except BaseException as fault:  # noqa: BLE001  # it is not this task's: serve raises it
            self._end(fault)

    async def _settle(self, call: Called, awaitable: Awaitable[Any]) -> Outgoing | None:
        try:
            return await self._answering.settle(call, awaitable)
        except asyncio.CancelledError as error:
            if self._ending:
                raise
            # It is not serving that is cancelled, but what the handler had waited for, or the handler itself: that is
            # the requester's to know.
            task = asyncio.current_task()
            while task is not None and task.uncancel():
                pass
            return self._answering.failure(call, error)

    async def _work(self) -> None:
        queue = self._service.queue
        while True:
            taken = queue.popleft() if queue else await self._drive(self._answering.next())
            if taken is None:
                return
            await self._go_on(*taken, self._answering.call(*taken))
