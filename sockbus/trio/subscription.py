"""Taking the messages of one pattern: one by one, or in batches."""

from __future__ import annotations

from types import TracebackType
from typing import Self, final

from ..client.taking import Taking
from ..message import Message
from .waits import Waits, drive

__all__ = ["Subscription"]


@final
class Subscription:
    """Messages of one pattern, as ``Bus.subscribe`` gives them; several tasks may take, each message goes to one.

    Iterating and ``receive`` raise ConnectionLost when the broker goes, after what had come was taken. A message that
    was taken is never lost to a cancellation.
    """

    def __init__(
        self, waits: Waits, pattern: str, group: str | None, fds: str, capacity: int, capacity_bytes: int
    ) -> None:
        self._taking = Taking(waits, pattern, group, fds, capacity, capacity_bytes, how="async with")

    @property
    def lost(self) -> int:
        """Messages of this subscription that were lost so far; readable after it was left, too."""
        return self._taking.mailbox.lost

    async def __aenter__(self) -> Self:
        await drive(self._taking.entered())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taking.leave()

    def __aiter__(self) -> Self:
        self._taking.mailbox  # noqa: B018  # raises before it was entered
        return self

    async def __anext__(self) -> Message:
        message = self._taking.take()
        if message is None:
            message = await drive(self._taking.next())
            if message is None:
                raise StopAsyncIteration
        return message

    async def receive(self) -> Message:
        """The next message; ConnectionLost when the broker has gone, or the subscription was left."""
        return await drive(self._taking.received())

    def batches(self) -> Batches:
        """An async iterator of lists of what is there, never empty."""
        self._taking.mailbox  # noqa: B018  # raises before it was entered
        return Batches(self._taking)


@final
class Batches:
    """The lists of one ``Subscription.batches``."""

    def __init__(self, taking: Taking) -> None:
        self._taking = taking

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        taken = await drive(self._taking.next_batch())
        if not taken:
            raise StopAsyncIteration
        return taken
