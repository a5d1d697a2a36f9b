"""Taking messages in programs with an event loop: the ``Subscription`` of all their runtimes."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from ..message import Message
from .face import Staying
from .taking import STAYS, Taking

if TYPE_CHECKING:
    from .event_loop import EventLoopClient

__all__ = ["Batches", "Subscription"]


@final
class Subscription(Staying):
    """Messages of one pattern, as ``Bus.subscribe`` gives them; several tasks may take, each message goes to one.

    Iterating and ``receive`` go on when the connection was lost and is there again. They raise ConnectionLost when
    there will be no other, and SubscriptionStalled when the subscription was ended, after what had come was taken. A
    message that was taken is never lost to a cancellation.
    """

    _stays = STAYS

    def __init__(
        self,
        waits: EventLoopClient,
        pattern: str,
        group: str | None,
        fds: str,
        capacity: int,
        capacity_bytes: int,
        overflow: str,
        stall: float | None,
    ) -> None:
        self._waits = waits
        self._drive = waits.drive
        self._taking = Taking(waits, pattern, group, fds, capacity, capacity_bytes, overflow, stall, how="async with")

    @property
    def lost(self) -> int:
        """Messages of this subscription that were lost so far; readable after it was left, too."""
        return self._taking.mailbox.lost

    @property
    def interrupted(self) -> int:
        """How often the connection was lost under it so far: what was published meanwhile never came, uncounted."""
        return self._taking.mailbox.interrupted

    async def __aenter__(self) -> Self:
        await self._drive(self._taking.entered())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taking.leave()

    def __aiter__(self) -> Self:
        self._taking.check_entered()
        return self

    async def __anext__(self) -> Message:
        message = self._taking.take()
        if message is None:
            message = await self._drive(self._taking.next())
            if message is None:
                raise StopAsyncIteration
        return message

    async def receive(self) -> Message:
        """The next message; ConnectionLost when the broker has gone, or the subscription was left."""
        return await self._drive(self._taking.received())

    def batches(self) -> Batches:
        """An async iterator of lists of what is there, never empty."""
        self._taking.check_entered()
        return Batches(self._waits, self._taking)


@final
class Batches:
    """The lists of one ``Subscription.batches``."""

    def __init__(self, waits: EventLoopClient, taking: Taking) -> None:
        self._drive = waits.drive
        self._taking = taking

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        taken = await self._drive(self._taking.next_batch())
        if not taken:
            raise StopAsyncIteration
        return taken
