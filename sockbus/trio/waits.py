"""All the waiting of one connection: for its socket, for answers, for room, for a turn.

Three tasks in a nursery of the connection's own read, write what a direct send could not, and give credit back in time.
``drive`` waits for what everybody else's steps need. Neither costs a scheduler pass for each message.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from threading import get_ident
from typing import Any, TypeVar, final

import trio

from ..client.answering import Handler
from ..client.client import LATER_SECONDS, TICK_SECONDS
from ..client.connecting import Connecting
from ..client.event_loop import EventLoopClient
from ..client.need import Expired, Gate, Need, Steps, Turn, resume
from ..protocol.mailbox import Service
from ..protocol.pending import Pending
from ..transport.base import Blocked
from ..transport.channel import Channel
from ..transport.dial import Pause, Readable, Writable
from .workers import Workers

__all__ = ["Waits"]

T = TypeVar("T")


@final
class Waits(EventLoopClient):
    """The tasks of one connection, besides what every client has."""

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        super().__init__(channel, connecting)
        self._writer = trio.lowlevel.ParkingLot()
        self._ticker = trio.lowlevel.ParkingLot()
        self._ended = trio.lowlevel.ParkingLot()
        self._nursery_manager = trio.open_nursery()
        self._scopes: list[trio.CancelScope] = []

    @trio.lowlevel.enable_ki_protection
    async def open(self) -> None:
        # It spans the caller's block.
        nursery = await self._nursery_manager.__aenter__()
        # Nothing may ever be cancelled or raised in the caller's block by these tasks: they live in shielded scopes of
        # their own, also while the block is being cancelled and cleans up with what the bus can do.
        self._scopes = [trio.CancelScope(shield=True) for _ in range(3)]
        for scope, work in zip(self._scopes, (self._read, self._write, self._tick), strict=True):
            nursery.start_soon(self._run, scope, work)
        self.channel.flush()

    @trio.lowlevel.enable_ki_protection
    async def close(self) -> None:
        for scope in self._scopes:
            scope.cancel()
        with trio.CancelScope(shield=True):
            while self._scopes:
                await self._ended.park()
        # With no task left this neither waits nor raises.
        await self._nursery_manager.__aexit__(None, None, None)
        self.left()
        self.channel.close()

    def forked(self) -> None:
        if get_ident() == self._thread:
            # At once: what still waited would hold the socket's number, which the child soon has for another file.
            for scope in self._scopes:
                scope.cancel()
        super().forked()

    @trio.lowlevel.enable_ki_protection
    async def _run(self, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with scope:
                await work()
        finally:
            self._scopes.remove(scope)
            self._ended.unpark_all()

    async def _read(self) -> None:
        while self.error is None:
            await self._read_to_the_end(self.channel)
            # Who waits to write must not when the socket is closed.
            trio.lowlevel.notify_closing(self.channel.sock)
            await self.keep()

    async def _read_to_the_end(self, channel: Channel) -> None:
        session = channel.session
        while True:
            await trio.lowlevel.wait_readable(channel.sock)
            if not channel.read():
                return
            if channel.blocked is not None:
                self._writer.unpark_all()
            if self._ticker and session.deliveries.mailboxes:
                self._ticker.unpark_all()

    def take_up(self) -> None:
        # The reader is where this comes from, and the writer asks for the channel each time.
        if self._ticker and self.session.deliveries.mailboxes:
            self._ticker.unpark_all()

    async def _write(self) -> None:
        while self.error is None:
            channel = self.channel
            if channel.blocked is Blocked.WRITABLE:
                try:
                    await trio.lowlevel.wait_writable(channel.sock)
                except trio.ClosedResourceError:
                    # Lost; the next one says for itself what it is blocked by.
                    channel.blocked = None
                    continue
                channel.unblock()
            elif channel.blocked is Blocked.LATER:
                await trio.sleep(LATER_SECONDS)
                channel.unblock()
                if channel is not self.channel:
                    # Meanwhile nobody was told that something is to leave by the next one.
                    self.channel.flush()
            else:
                self.writer_sleeps = True
                await self._writer.park()
                self.writer_sleeps = False
                self.channel.flush()

    async def _tick(self) -> None:
        while True:
            await self._ticker.park()
            again = True
            while again:
                await trio.sleep(TICK_SECONDS)
                again = self.session.tick()
                self.flush_urgent()

    # For all calls

    def send_rest(self) -> None:
        self._writer.unpark_all()

    def flush_soon(self) -> None:
        """At the scheduler's next pass."""
        if self.writer_sleeps:
            self.writer_sleeps = False
            self._writer.unpark_all()

    # Between recvmsg(2) and what stores the fds that came, between sendmsg(2) and what notes that they left, and within
    # the steps of a call, nothing may be raised: a Ctrl-C comes where something is waited for.
    @staticmethod
    @trio.lowlevel.enable_ki_protection
    async def drive(steps: Steps[T], timeout: float | None = None) -> T:
        try:
            need = next(steps)
            if timeout is not None:
                with trio.CancelScope(deadline=trio.current_time() + timeout):
                    while True:
                        need = resume(steps, await _wait(need))
                need = steps.throw(Expired(timeout))
            while True:
                need = resume(steps, await _wait(need))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what StopIteration holds has no type
        finally:
            steps.close()

    sleep = staticmethod(trio.sleep)
    clock = staticmethod(trio.current_time)

    @staticmethod
    def is_cancelled(error: BaseException | None) -> bool:
        if isinstance(error, BaseExceptionGroup):
            return error.split(trio.Cancelled)[1] is None
        return isinstance(error, trio.Cancelled)

    async def work(self, service: Service, handler: Handler) -> None:
        await Workers(self, service, handler).run()


async def _wait(need: Need) -> Any:
    """Wait for it; what ``resume`` wants to know of it."""
    match need:
        case Pending() | Gate():
            wake = functools.partial(trio.lowlevel.reschedule, trio.lowlevel.current_task())
            need.attach(wake)

            def abort(_: object) -> trio.lowlevel.Abort:
                need.detach(wake)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        case Turn():
            await trio.lowlevel.checkpoint()
        case Readable():
            await trio.lowlevel.wait_readable(need.sock)
        case Writable():
            # Of a socket that connects, the error is read from the socket.
            await trio.lowlevel.wait_writable(need.sock)
        case Pause():
            await trio.sleep(need.seconds)
        case _:
            try:
                return await trio.socket.getaddrinfo(need.host, need.port, type=trio.socket.SOCK_STREAM)
            except OSError as error:
                return error
    return None
