"""Taking the messages of one pattern: one by one, or in batches."""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Self, final

import trio

from ..errors import ConnectionLost
from ..message import Message
from .waits import YIELD_SECONDS, Waits

__all__ = ["Subscription"]


@final
class Subscription:
    """Messages of one pattern, as ``Bus.subscribe`` gives them; several tasks may take, each message goes to one.

    Iterating and ``receive`` raise ConnectionLost when the broker goes, after what had come was taken. A message that
    was taken is never lost to a cancellation.
    """

    def __init__(
        self, waits: Waits, pattern: str, group: str | None, capacity: int, capacity_bytes: int, *, strip: bool
    ) -> None:
        self._waits = waits
        self._session = waits.session
        self._orders = waits.session.orders
        self._pattern = pattern
        self._group = group
        self._capacity = (capacity, capacity_bytes)
        self._strip = strip
        self._takers = trio.lowlevel.ParkingLot()
        self._entered = False
        self._left = False

    @property
    def lost(self) -> int:
        """Messages of this subscription that were lost so far; readable after it was left, too."""
        self._check_entered()
        return self._mailbox.lost

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError(f"the subscription to {self._pattern!r} was entered before; make another one")
        self._mailbox, pending = self._session.subscribe(self._pattern, self._group, *self._capacity, strip=self._strip)
        self._mailbox.wake = self._wake
        self._entered = True
        self._waits.flush()
        try:
            await self._waits.result(pending)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._left = True
        self._session.leave(self._mailbox)
        self._waits.flush_urgent()
        self._takers.unpark_all()

    def _wake(self) -> None:
        if self._session.error is not None:
            self._takers.unpark_all()
        elif self._takers:
            self._takers.unpark(count=len(self._mailbox.queue))

    def _check_entered(self) -> None:
        if not self._entered:
            raise RuntimeError(
                f"the subscription to {self._pattern!r} is not in force; enter it with `async with` first"
            )

    def __aiter__(self) -> Self:
        self._check_entered()
        return self

    async def __anext__(self) -> Message:
        waits = self._waits
        if perf_counter() - waits.yielded < YIELD_SECONDS:
            # What is there already costs no more than this.
            message = self._mailbox.take()
            if message is not None:
                if self._orders.urgent:
                    waits.flush()
                return message
        message = await self._next()
        if message is None:
            raise StopAsyncIteration
        return message

    async def receive(self) -> Message:
        """The next message; ConnectionLost when the broker has gone, or the subscription was left."""
        self._check_entered()
        message = await self._next()
        if message is None:
            raise ConnectionLost(f"the subscription to {self._pattern!r} was left; subscribe again")
        return message

    async def _next(self) -> Message | None:
        waits = self._waits
        # Before taking, never after: a cancellation that came after would lose the message.
        await waits.let_others_run()
        while True:
            message = self._mailbox.take()
            waits.flush_urgent()
            if message is not None or self._left:
                return message
            self._session.check()
            await self._takers.park()
            waits.yielded = perf_counter()

    def batches(self) -> Batches:
        """An async iterator of lists of what is there, never empty."""
        self._check_entered()
        return Batches(self)

    async def _next_batch(self) -> list[Message]:
        await self._waits.let_others_run()
        while True:
            taken = self._mailbox.take_all()
            self._waits.flush_urgent()
            if taken or self._left:
                return taken
            self._session.check()
            await self._takers.park()


@final
class Batches:
    """The lists of one ``Subscription.batches``."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        taken = await self._subscription._next_batch()
        if not taken:
            raise StopAsyncIteration
        return taken
