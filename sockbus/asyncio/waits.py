"""All the waiting of one connection: for its socket, for answers, for room, for a turn.

Raw sockets with ``add_reader`` and ``add_writer``, for asyncio's streams and protocols refuse SEQPACKET. The loop calls
the reader directly, so a connection has no task of its own, and an idle one neither a task nor a timer.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Any, TypeVar, final

from ..client.answering import Handler
from ..client.client import LATER_SECONDS, TICK_SECONDS
from ..client.connecting import Connecting
from ..client.event_loop import EventLoopClient
from ..client.need import TURN, Expired, Gate, Need, Steps, Turn, resume
from ..protocol.mailbox import Service
from ..protocol.pending import Pending
from ..transport.base import Blocked
from ..transport.channel import Channel
from ..transport.dial import Pause, Readable, Resolve, Writable
from .workers import Workers

__all__ = ["Waits"]

T = TypeVar("T")


@final
class Waits(EventLoopClient):
    """The callbacks of one bus, besides what every client has."""

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        super().__init__(channel, connecting)
        self._loop = asyncio.get_running_loop()
        self._fd = channel.sock.fileno()
        self._writes = False
        self._later: asyncio.TimerHandle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        # Only while there is no connection.
        self._keeper: asyncio.Task[None] | None = None
        self.writer_sleeps = True

    async def open(self) -> None:
        self._loop.add_reader(self._fd, self._read)
        self.flush()

    async def close(self) -> None:
        self._stop()
        if self._ticker is not None:
            self._ticker.cancel()
        try:
            if self._keeper is not None:
                # It closes what it is at by itself, at its next step.
                self._keeper.cancel()
                await asyncio.wait([self._keeper])
        finally:
            self.left()
            self.channel.close()

    def _stop(self) -> None:
        """Nothing is waited for at the socket any more; again is no error."""
        # Once: the number may be another file's by the next time.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            if self._writes:
                self._writes = False
                self._loop.remove_writer(fd)
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def forked(self) -> None:
        self._stop()
        if self._keeper is not None and not self._keeper.done():
            self._keeper.cancel()
        super().forked()

    def _read(self) -> None:
        channel = self.channel
        if not channel.read():
            self._stop()
            if self.error is None:
                self._keeper = self._loop.create_task(self._keep())
            self.report_all()
            return
        if channel.blocked is not None:
            self.send_rest()
        if self._ticker is None and self.session.deliveries.mailboxes:
            self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)

    async def _keep(self) -> None:
        await self.keep()
        self._keeper = None

    def take_up(self) -> None:
        self._fd = self.channel.sock.fileno()
        self._loop.add_reader(self._fd, self._read)
        if self._ticker is None and self.session.deliveries.mailboxes:
            self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)

    def send_rest(self) -> None:
        if self._writes or self._later is not None or self.session.error is not None:
            return
        if self.channel.blocked is Blocked.WRITABLE:
            self._writes = True
            self._loop.add_writer(self._fd, self._go_on)
        else:
            self._later = self._loop.call_later(LATER_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._later = None
        self.channel.unblock()
        if self._writes and self.channel.blocked is not Blocked.WRITABLE:
            self._writes = False
            self._loop.remove_writer(self._fd)
        if self.channel.blocked is not None:
            self.send_rest()

    def flush_soon(self) -> None:
        """When the loop has done what it is at."""
        self.writer_sleeps = False
        self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self.writer_sleeps = True
        self.flush()

    def _tick(self) -> None:
        self._ticker = None
        if self.session.tick():
            self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)
        self.flush_urgent()

    @staticmethod
    async def drive(steps: Steps[T], timeout: float | None = None) -> T:
        try:
            need = next(steps)
            while need is TURN:
                await asyncio.sleep(0)
                need = next(steps)
            # Not before: in a forked child no loop counts as running, and calls of its parent's bus have ended by now.
            loop = asyncio.get_running_loop()
            deadline = None if timeout is None else loop.time() + timeout
            while True:
                try:
                    found = await _wait(loop, need, deadline)
                except TimeoutError:
                    deadline = None
                    need = steps.throw(Expired(timeout or 0.0))
                else:
                    need = resume(steps, found)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what StopIteration holds has no type
        finally:
            steps.close()

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @staticmethod
    def clock() -> float:
        return asyncio.get_running_loop().time()

    @staticmethod
    def is_cancelled(error: BaseException | None) -> bool:
        if isinstance(error, BaseExceptionGroup):
            return error.split(asyncio.CancelledError)[1] is None
        return isinstance(error, asyncio.CancelledError)

    async def work(self, service: Service, handler: Handler) -> None:
        await Workers(self, service, handler).run()


async def _wait(loop: asyncio.AbstractEventLoop, need: Need, deadline: float | None) -> Any:
    """Wait for it; what ``resume`` wants to know of it. TimeoutError at the deadline."""
    match need:
        case Pending() | Gate():
            await _be_woken(loop, need, deadline)
        case Turn():
            await asyncio.sleep(0)
        case _:
            async with asyncio.timeout_at(deadline):
                return await _wait_outside(loop, need)
    return None


async def _be_woken(loop: asyncio.AbstractEventLoop, need: Pending | Gate, deadline: float | None) -> None:
    # A timer of its own: asyncio.timeout would cancel the task, which costs more, and some cancel for other reasons.
    future = loop.create_future()
    wake = functools.partial(_end, future, True)
    need.attach(wake)
    timer = None if deadline is None else loop.call_at(deadline, _end, future, False)
    woken = False
    try:
        woken = await future
    finally:
        if timer is not None:
            timer.cancel()
        if not woken:
            # It is too late, or was cancelled: also when it had been woken just before, which is then the next one's.
            need.detach(wake)
    if not woken:
        raise TimeoutError


def _end(future: asyncio.Future[bool], value: bool) -> None:  # noqa: FBT001  # a callback's
    if not future.done():
        future.set_result(value)


async def _wait_outside(loop: asyncio.AbstractEventLoop, need: Need) -> Any:
    """For what is needed to connect."""
    match need:
        case Readable():
            future = loop.create_future()
            loop.add_reader(need.sock, _end, future, True)
            try:
                await future
            finally:
                loop.remove_reader(need.sock)
        case Writable():
            # Of a socket that connects, the error is read from the socket.
            future = loop.create_future()
            loop.add_writer(need.sock, _end, future, True)
            try:
                await future
            finally:
                loop.remove_writer(need.sock)
        case Pause():
            await asyncio.sleep(need.seconds)
        case Resolve():
            try:
                return await loop.getaddrinfo(need.host, need.port, type=socket.SOCK_STREAM)
            except OSError as error:
                return error
    return None
