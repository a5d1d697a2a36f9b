"""Taking the messages of one pattern: what every runtime's ``Subscription`` does between its waits."""

from __future__ import annotations

from time import perf_counter
from typing import final

from ..errors import ConnectionLost
from ..message import Message
from ..protocol.lossy import mailbox_for
from ..protocol.mailbox import Mailbox, check_capacity
from ..protocol.overflow import Overflow
from ..topic import check_pattern
from .client import Client
from .need import Gate, Steps

__all__ = ["STAYS", "Taking"]

#: why a ``Subscription`` refuses to be pickled
STAYS = (
    "a subscription can be neither pickled nor copied: its messages come to a bus of this process; pass the address of "
    "the bus and the pattern, and subscribe there"
)


@final
class Taking:
    """One subscription, from its options to its end. ``how`` is what its users write to enter it."""

    def __init__(
        self,
        client: Client,
        pattern: str,
        group: str | None,
        fds: str,
        capacity: int,
        capacity_bytes: int,
        overflow: str,
        stall: float | None,
        *,
        how: str,
    ) -> None:
        check_capacity(group, fds, capacity, capacity_bytes, overflow, stall)
        self._client = client
        self._pattern = pattern
        self._group = group
        self._capacity = (capacity, capacity_bytes)
        self._overflow = Overflow(overflow)
        self._stall = stall
        self._strip = fds == "strip"
        self._how = how
        self._takers = Gate()
        self._mailbox: Mailbox | None = None
        self._left = False

    @property
    def mailbox(self) -> Mailbox:
        """What has come; RuntimeError before the subscription was entered."""
        if self._mailbox is None:
            raise RuntimeError(
                f"the subscription to {self._pattern!r} is not in force; enter it with `{self._how}` first"
            )
        return self._mailbox

    def check_entered(self) -> None:
        """RuntimeError before the subscription was entered."""
        self.mailbox  # noqa: B018  # it raises

    # Its life

    def entered(self) -> Steps[None]:
        """Subscribe, and wait until that is in force."""
        if self._mailbox is not None:
            raise RuntimeError(f"the subscription to {self._pattern!r} was entered before; make another one")
        check_pattern(self._pattern)
        mailbox = self._mailbox = mailbox_for(
            self._overflow, self._pattern, self._group, *self._capacity, self._stall, strip=self._strip
        )
        mailbox.wake = self._wake
        try:
            yield from self._client.put_in_force(mailbox)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """End it, and whatever waits for its messages."""
        self._left = True
        self._client.leave(self.mailbox)
        self._takers.open_all()

    def _wake(self) -> None:
        mailbox = self.mailbox
        if self._client.error is not None or mailbox.error is not None or mailbox.drained:
            self._takers.open_all()
        elif self._takers.waiting:
            self._takers.open(mailbox.ready)

    def _check(self) -> None:
        """Raise why no more comes, if that is so."""
        error = self.mailbox.error
        if error is not None:
            # Each who takes gets one of its own.
            raise type(error)(*error.args) from error
        self._client.check()

    # Taking

    def take(self) -> Message | None:
        """A message that is there, unless it is time to let others run: costs no more than this."""
        if perf_counter() - self._client.yielded < self._client.yield_seconds:
            message = self._mailbox.take()  # type: ignore[union-attr]  # who iterates has asked for ``mailbox`` before
            if message is not None and self._client.session.orders.urgent:
                self._client.flush()
            return message
        return None

    def next(self) -> Steps[Message | None]:
        """Wait for the next message; None when the subscription was left."""
        client, mailbox = self._client, self.mailbox
        # Before taking, never after: a cancellation that came after would lose the message.
        yield from client.turn_if_due()
        while True:
            message = mailbox.take()
            client.flush_urgent()
            if message is not None or self._left or mailbox.drained:
                return message
            self._check()
            yield self._takers
            client.yielded = perf_counter()

    def received(self) -> Steps[Message]:
        """Wait for the next message; ConnectionLost when the subscription was left."""
        message = yield from self.next()
        if message is None:
            raise ConnectionLost(f"the subscription to {self._pattern!r} was left; subscribe again")
        return message

    def put_back(self, messages: list[Message]) -> None:
        """What was taken last was not handed over after all, and is the next to be taken."""
        self.mailbox.put_back(messages)
        self._wake()

    def next_batch(self) -> Steps[list[Message]]:
        """Wait until something is there, and take all of it; empty when the subscription was left."""
        client, mailbox = self._client, self.mailbox
        yield from client.turn_if_due()
        while True:
            taken = mailbox.take_all()
            client.flush_urgent()
            if taken or self._left or mailbox.drained:
                return taken
            self._check()
            yield self._takers
            client.yielded = perf_counter()
