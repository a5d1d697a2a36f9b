"""The tasks that run the handler of one service: as many as it needs at once, idle ones parked.

A parked worker is woken by the reader directly, so that a request costs one scheduler pass and no new task.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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

    async def run(self) -> None:
        """Until cancelled, or the session has ended."""
        async with trio.open_nursery() as self._nursery:
            self._service.wake = self._wake
            try:
                self._wake()
                await trio.sleep_forever()
            finally:
                # A nursery that has closed takes no tasks; what still comes is thrown away with the service.
                self._service.wake = no_wake

    def _wake(self) -> None:
        if self._session.error is not None:
            self._nursery.cancel_scope.cancel()
            return
        waiting = len(self._service.queue)
        woken = len(self._idle.unpark(count=waiting))
        for _ in range(min(waiting - woken, self._service.concurrency - self._count)):
            self._count += 1
            self._nursery.start_soon(self._work)

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
        try:
            reply = self._handler(request)
            if inspect.isawaitable(reply):
                reply = await reply
            if not isinstance(reply, Reply):
                reply = Reply(reply)
            return self._session.sender.reply(call, reply.payload, reply.fds, reply.headers)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the requester's to know, and serving goes on
            if self._session.error is not None:
                return None
            return self._session.sender.failure(call, error)
