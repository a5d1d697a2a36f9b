"""All the waiting of one connection: for its socket, for answers, for room, for a turn.

Three tasks in a nursery of the connection's own read, write what a direct send could not, and give credit back in time.
Publishing and taking cost no scheduler pass of their own: they yield by time, after a millisecond, or by 64 KiB. A
checkpoint for each message left a fifth of the speed (``python -m benchmarks throughput``).
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, final

import trio

from ..protocol.mailbox import no_wake
from ..protocol.pending import Pending
from ..protocol.sender import Outgoing
from ..transport.base import Blocked
from ..transport.channel import Channel

__all__ = ["YIELD_BYTES", "YIELD_SECONDS", "Waits"]

# Seconds that one task may go on without letting others run, and the queue at which a publisher sends and yields.
YIELD_SECONDS = 0.001
YIELD_BYTES = 1 << 16
# Credit must be back a second after consumption: two ticks.
TICK_SECONDS = 0.5
# Seconds until a send is tried again that met a limit of the kernel's, which readiness does not show.
LATER_SECONDS = 0.01


@final
class Waits:
    """The tasks of one connection, and what other tasks wait for in it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.session = channel.session
        self.session.room = self._wake_room
        self.session.request_ended = self._wake_one
        #: when a task of this bus last let others run
        self.yielded = 0.0
        #: whether ``flush_soon`` has something to do
        self.writer_sleeps = False
        self._room = trio.lowlevel.ParkingLot()
        self._slots = trio.lowlevel.ParkingLot()
        self._writer = trio.lowlevel.ParkingLot()
        self._ticker = trio.lowlevel.ParkingLot()
        self._ended = trio.lowlevel.ParkingLot()
        self._nursery_manager = trio.open_nursery()
        self._scopes: list[trio.CancelScope] = []

    # Life

    @trio.lowlevel.enable_ki_protection
    async def open(self) -> None:
        """Start the tasks. The nursery spans the caller's block, so ``close`` must follow in the same task."""
        nursery = await self._nursery_manager.__aenter__()
        # Nothing may ever be cancelled or raised in the caller's block by these tasks: they live in shielded scopes of
        # their own, also while the block is being cancelled and cleans up with what the bus can do.
        self._scopes = [trio.CancelScope(shield=True) for _ in range(3)]
        for scope, work in zip(self._scopes, (self._read, self._write, self._tick), strict=True):
            nursery.start_soon(self._run, scope, work)
        self.channel.flush()

    @trio.lowlevel.enable_ki_protection
    async def close(self) -> None:
        """End the tasks and close the socket; neither cancelled nor raising."""
        for scope in self._scopes:
            scope.cancel()
        with trio.CancelScope(shield=True):
            while self._scopes:
                await self._ended.park()
        # With no task left this neither waits nor raises.
        await self._nursery_manager.__aexit__(None, None, None)
        self.channel.close()

    # Between recvmsg(2) and what stores the fds that came, and between sendmsg(2) and what notes that they left,
    # nothing may be raised: a Ctrl-C comes at the program's next checkpoint instead.
    @trio.lowlevel.enable_ki_protection
    async def _run(self, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with scope:
                await work()
        finally:
            self._scopes.remove(scope)
            self._ended.unpark_all()

    # Tasks

    async def _read(self) -> None:
        channel, session = self.channel, self.session
        while True:
            await trio.lowlevel.wait_readable(channel.sock)
            if not channel.read():
                self._writer.unpark_all()
                return
            if channel.blocked is not None:
                self._writer.unpark_all()
            if self._ticker and session.deliveries.mailboxes:
                self._ticker.unpark_all()

    async def _write(self) -> None:
        channel = self.channel
        while self.session.error is None:
            if channel.blocked is Blocked.WRITABLE:
                await trio.lowlevel.wait_writable(channel.sock)
                channel.unblock()
            elif channel.blocked is Blocked.LATER:
                await trio.sleep(LATER_SECONDS)
                channel.unblock()
            else:
                self.writer_sleeps = True
                await self._writer.park()
                self.writer_sleeps = False
                channel.flush()

    async def _tick(self) -> None:
        while True:
            await self._ticker.park()
            again = True
            while again:
                await trio.sleep(TICK_SECONDS)
                again = self.session.tick()
                self.flush_urgent()

    # For other tasks

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """Send what is queued now; the writer sends what the socket does not take."""
        self.channel.flush()
        if self.channel.blocked is not None:
            self._writer.unpark_all()

    def flush_soon(self) -> None:
        """Send what is queued at the scheduler's next pass, together with what is queued until then."""
        if self.writer_sleeps:
            self.writer_sleeps = False
            self._writer.unpark_all()

    def flush_urgent(self) -> None:
        """Send now what should not wait for a program that computes."""
        if self.session.orders.urgent:
            self.flush()

    async def let_others_run(self) -> None:
        """Yield, once a millisecond."""
        if perf_counter() - self.yielded > YIELD_SECONDS:
            await trio.lowlevel.checkpoint()
            self.yielded = perf_counter()

    async def room(self) -> None:
        """Wait until there may be room that there was not; raises why the session ended, when it has."""
        await self._room.park()
        self.session.check()

    def _wake_room(self) -> None:
        self._room.unpark_all()
        if self.session.error is not None:
            self._slots.unpark_all()

    def _wake_one(self) -> None:
        # One request has ended, and so one may start: all at once would look again in vain, time after time.
        self._slots.unpark()

    @trio.lowlevel.enable_ki_protection
    async def send(self, outgoing: Outgoing) -> None:
        """Queue a message when there is room, and send what the socket takes. Cancelled, it was not queued."""
        try:
            while not self.session.send(outgoing):
                if self.session.must_wait_for_reply(outgoing):
                    await self._slots.park()
                else:
                    await self._room.park()
        except BaseException:
            # The place that it was woken for, if it was, is the next one's.
            self._wake_one()
            raise
        self.flush()

    async def result(self, pending: Pending) -> Any:
        """Wait for an answer; cancelled, nobody waits for it any more."""
        if not pending.done:
            pending.wake = functools.partial(trio.lowlevel.reschedule, trio.lowlevel.current_task())

            def abort(_: object) -> trio.lowlevel.Abort:
                pending.wake = no_wake
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        return pending.result()

    async def welcome(self, deadline: float) -> bool:
        """Wait for the broker's answer to HELLO; whether it came in time. Raises why it refused."""
        with trio.CancelScope(deadline=deadline):
            await self.result(self.session.welcome)
            return True
        return False

    async def leave(self, seconds: float, flush: Callable[[], Awaitable[None]]) -> bool:
        """Wait until the broker has taken over everything; whether it did so in time."""
        with trio.move_on_after(seconds):
            await flush()
            return True
        return False

    @trio.lowlevel.enable_ki_protection
    def goodbye(self) -> None:
        """Say that this side leaves, as far as the socket takes it."""
        self.session.goodbye()
        self.channel.flush()


def is_cancelled(error: BaseException | None) -> bool:
    """Whether a block is left because it was cancelled, wholly."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)
