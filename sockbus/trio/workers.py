"""Running the handler of one service.

An async handler has tasks: as many as it needs at once, idle ones parked and woken by the reader directly. A plain one
blocks everybody else whoever runs it, so the reader runs it, in the context of ``serve``: a request costs no scheduler
pass (``python -m benchmarks latency``). What it raises that is no Exception, such as Ctrl-C, comes out of ``serve``.
"""

from __future__ import annotations

import contextvars
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, final

import trio

from ..errors import SockbusError
from ..message import Message, Reply
from ..protocol.mailbox import Service, no_wake
from ..protocol.sender import Outgoing
from .waits import Waits

__all__ = ["Handler", "Workers"]

Handler = Callable[[Message], Any]


@final
class Workers:
    """Up to ``service.concurrency`` tasks at one handler."""

    def __init__(self, waits: Waits, service: Service, handler: Handler) -> None:
        self._waits = waits
        self._session = waits.session
        self._service = service
        self._handler = handler
        self._idle = trio.lowlevel.ParkingLot()
        self._count = 0
        self._is_plain = not inspect.iscoroutinefunction(handler)
        # The reader defers Ctrl-C; a handler that computes must be stopped by it all the same.
        self._unprotected = trio.lowlevel.disable_ki_protection(self._call)
        self._context = contextvars.copy_context()
        self._fault: BaseException | None = None

    async def run(self) -> None:
        """Until cancelled, or the session has ended."""
        async with trio.open_nursery() as self._nursery:
            self._service.wake = self._wake
            try:
                self._wake()
                await trio.sleep(math.inf)
            finally:
                # A nursery that has closed takes no tasks; what still comes is thrown away with the service.
                self._service.wake = no_wake
        if self._fault is not None:
            raise self._fault

    def _wake(self) -> None:
        if self._session.error is not None:
            self._nursery.cancel_scope.cancel()
            return
        if self._is_plain:
            self._run_plain()
            return
        waiting = len(self._service.queue)
        woken = len(self._idle.unpark(count=waiting))
        for _ in range(min(waiting - woken, self._service.concurrency - self._count)):
            self._count += 1
            self._nursery.start_soon(self._work)

    def _run_plain(self) -> None:
        queue = self._service.queue
        while queue and self._fault is None:
            call, request = queue.popleft()
            try:
                reply = self._context.run(self._unprotected, call, request)
            except BaseException as fault:  # noqa: BLE001  # it is not the reader's: serve raises it
                request.close()
                self._fault = fault
                self._nursery.cancel_scope.cancel()
                return
            if isinstance(reply, Outgoing) and self._sent(reply):
                request.close()
            else:
                self._nursery.start_soon(self._go_on, call, request, reply)

    def _sent(self, reply: Outgoing) -> bool:
        """Queue a reply, to leave when the reader has done its turn; False when that has to wait or fails."""
        try:
            sent = self._session.send(reply)
        except SockbusError:
            return False
        self._session.orders.urgent = True
        return sent

    async def _go_on(self, call: int, request: Message, reply: Any) -> None:
        """What could not be done at once: an awaitable that a plain handler returned, a reply without room."""
        with request:
            if inspect.isawaitable(reply):
                reply = await self._settle(call, reply)
            await self._answer(call, reply)

    async def _work(self) -> None:
        queue = self._service.queue
        while True:
            while not queue:
                await self._idle.park()
            call, request = queue.popleft()
            with request:
                await self._answer(call, await self._handle(call, request))

    async def _answer(self, call: int, reply: Outgoing | None) -> None:
        try:
            if reply is not None:
                await self._waits.send(reply)
        except SockbusError as error:
            # The session has ended, and ``run`` says so; or the reply's fds could not be duplicated.
            if self._session.error is None:
                await self._answer(call, self._session.sender.failure(call, error))

    async def _handle(self, call: int, request: Message) -> Outgoing | None:
        reply = self._call(call, request)
        return await self._settle(call, reply) if inspect.isawaitable(reply) else reply

    def _call(self, call: int, request: Message) -> Any:
        """Run the handler: its reply, ready to send, or what is still to be awaited."""
        try:
            reply = self._handler(request)
            return reply if inspect.isawaitable(reply) else self._compose(call, reply)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the requester's to know, and serving goes on
            return self._failure(call, error)

    async def _settle(self, call: int, awaitable: Awaitable[Any]) -> Outgoing | None:
        try:
            return self._compose(call, await awaitable)
        except Exception as error:  # noqa: BLE001  # as above
            return self._failure(call, error)

    def _compose(self, call: int, reply: Any) -> Outgoing:
        if not isinstance(reply, Reply):
            reply = Reply(reply)
        return self._session.sender.reply(call, reply.payload, reply.fds, reply.headers)

    def _failure(self, call: int, error: Exception) -> Outgoing | None:
        return None if self._session.error is not None else self._session.sender.failure(call, error)
