"""Taking the messages of one pattern: one by one, or in batches.

A message is taken and handed over with nothing between that an interrupt could come in: where one is due, what was
taken is put back first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar, final

from ..client.face import Staying
from ..client.need import Expired, Steps
from ..client.taking import STAYS, Taking
from ..interrupt import deferred, deliver, is_due, pending
from ..message import Message
from ..protocol.mailbox import Mailbox
from .waits import Waits

__all__ = ["Batches", "Subscription"]

T = TypeVar("T")


@final
class Subscription(Staying):
    """Messages of one pattern, as ``Bus.subscribe`` gives them; several threads may take, each message goes to one.

    Iterating and ``receive`` go on when the connection was lost and is there again. They raise ConnectionLost when
    there will be no other, and SubscriptionStalled when the subscription was ended, after what had come was taken. A
    message that was taken by ``receive`` or a for loop is never lost to a KeyboardInterrupt; the builtin ``next`` may
    lose one, for CPython raises between its end and the assignment. What ``iter`` returns ends when it raises, as
    generators do; ``receive``, ``next(subscription)`` and ``batches`` go on.
    """

    _stays = STAYS

    def __init__(
        self,
        waits: Waits,
        pattern: str,
        group: str | None,
        fds: str,
        capacity: int,
        capacity_bytes: int,
        overflow: str,
        stall: float | None,
        timeout: float | None,
    ) -> None:
        self._waits = waits
        self._taking = Taking(waits, pattern, group, fds, capacity, capacity_bytes, overflow, stall, how="with")
        self._pattern = pattern
        self._timeout = timeout

    @property
    def lost(self) -> int:
        """Messages of this subscription that were lost so far; readable after it was left, too."""
        return self._looked().lost

    @property
    def interrupted(self) -> int:
        """How often the connection was lost under it so far: what was published meanwhile never came, uncounted."""
        return self._looked().interrupted

    @deferred
    def _looked(self) -> Mailbox:
        mailbox = self._taking.mailbox
        with self._waits as waits:
            waits.look()
        deliver()
        return mailbox

    @deferred
    def __enter__(self) -> Self:
        try:
            with self._waits as waits:
                waits.drive(self._taking.entered(), self._timeout)
        except Expired as expired:
            deliver()
            raise TimeoutError(
                f"the broker did not answer to the subscription to {self._pattern!r} within {expired.seconds:g} s; is "
                f"it stopped?"
            ) from None
        except BaseException:
            deliver()
            raise
        if is_due():
            # What raises here is not left by its __exit__.
            with self._waits:
                self._taking.leave()
            deliver()
        return self

    @deferred
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._waits:
            self._taking.leave()
        deliver()

    def __iter__(self) -> Iterator[Message]:
        self._taking.check_entered()
        return self._messages()

    # A generator, and ``with waits`` written out: this is the path of every message.
    @deferred
    def _messages(self) -> Iterator[Message]:
        waits, take = self._waits, self._taking.take
        while True:
            waits.enter()
            try:
                message = take()
                if message is None:
                    message = waits.drive(self._taking.next())
                if message is not None and waits.polls is not None:
                    waits.note_taken()
            except BaseException:
                waits.busy = False
                waits.release()
                deliver()
                raise
            waits.busy = False
            waits.release()
            if pending.came and is_due():
                self._put_back([] if message is None else [message])
            if message is None:
                return
            yield message

    @deferred
    def __next__(self) -> Message:
        message = self._take(self._taking.next, None)
        if message is None:
            deliver()
            raise StopIteration
        if pending.came and is_due():
            self._put_back([message])
        return message

    @deferred
    def receive(self, *, timeout: float | None = None) -> Message:
        """The next message; ConnectionLost when the broker has gone, or the subscription was left. TimeoutError."""
        message = self._take(self._taking.received, timeout)
        if pending.came and is_due():
            self._put_back([message])
        return message

    def batches(self, *, timeout: float | None = None) -> Batches:
        """An iterator of lists of what is there, never empty; TimeoutError when one does not come in time."""
        self._taking.check_entered()
        return Batches(self, timeout)

    def _take(self, steps: Callable[[], Steps[T]], timeout: float | None) -> T:
        waits = self._waits
        try:
            with waits:
                taken = waits.drive(steps(), timeout)
                waits.note_taken()
                return taken
        except Expired as expired:
            deliver()
            raise TimeoutError(f"no message came on {self._pattern!r} within {expired.seconds:g} s") from None
        except BaseException:
            deliver()
            raise

    def _next_batch(self, timeout: float | None) -> list[Message]:
        return self._take(self._taking.next_batch, timeout)

    def _put_back(self, messages: list[Message]) -> None:
        if messages:
            with self._waits:
                self._taking.put_back(messages)
        deliver()


@final
class Batches:
    """The lists of one ``Subscription.batches``."""

    def __init__(self, subscription: Subscription, timeout: float | None) -> None:
        self._subscription = subscription
        self._timeout = timeout

    def __iter__(self) -> Self:
        return self

    @deferred
    def __next__(self) -> list[Message]:
        taken = self._subscription._next_batch(self._timeout)
        if not taken:
            deliver()
            raise StopIteration
        if pending.came and is_due():
            self._subscription._put_back(taken)
        return taken
