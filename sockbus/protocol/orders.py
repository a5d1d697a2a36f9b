"""What a client has asked of its broker, and the answers.

``Orders`` gives out the odd numbers, queues the client's own frames, and finds for each OK, RECEIPT or ERROR who
waits for it. It remembers what was left behind, so that what was on its way is known from what never existed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from ..errors import ProtocolError, SockbusError, from_code
from ..message import Receipt
from . import body
from .frame import Kind, control
from .inbox import Run
from .mailbox import no_wake
from .outbox import Lane, Outbox
from .pending import Pending

__all__ = ["Orders"]


@final
class Orders:
    """The numbered questions of one session. ``sender`` is this client's number, once it has one.

    ``numbers``: the odd ones that were not used; a bus goes on with them in its next session, where what it still has
    to send keeps its number.
    """

    def __init__(self, outbox: Outbox, numbers: Iterator[int]) -> None:
        self.sender = 0
        #: something small was queued that should leave soon, even while the program computes
        self.urgent = False
        #: subscriptions and servers that were left → answers about them still to come
        self.closing: dict[int, int] = {}
        #: watches that have not ended
        self.watches: set[int] = set()
        self._fds_received = self._fds_told = 0
        self._outbox = outbox
        self._pendings: dict[int, Pending] = {}
        # Drawn in one step, for a blocking program composes a message before it asks for the lock.
        self._numbers = numbers

    def __contains__(self, number: object) -> bool:
        """Whether an answer about it is still to come: until then something that is on its way to it may come, too."""
        return number in self.closing or number in self._pendings

    def number(self) -> int:
        """A number that was not used before."""
        return next(self._numbers)

    def put(self, kind: Kind, value: object = None, *, correlation: int = 0, lane: Lane = Lane.CONTROL) -> None:
        """Queue a frame of the client's own; in the control lane it passes messages."""
        self._outbox.put(lane, control(kind, value, correlation=correlation, sender=self.sender))
        self.urgent = True

    def put_last(
        self, kind: Kind, value: object = None, *, correlation: int = 0, topic: bytes = b"", flags: int = 0
    ) -> None:
        """Queue a frame that must not pass what was queued before it."""
        frame = control(kind, value, correlation=correlation, sender=self.sender, topic=topic, flags=flags)
        self._outbox.put_last(frame)
        self.urgent = True

    def ask(self, kind: Kind, number: int, value: object = None, *, topic: bytes = b"", flags: int = 0) -> Pending:
        """Queue a question, behind all that was queued before; who waits for its answer."""
        self.put_last(kind, value, correlation=number, topic=topic, flags=flags)
        return self.expect(number)

    def expect(self, number: int, pending: Pending | None = None) -> Pending:
        """Somebody waits for the answer to ``number``."""
        pending = self._pendings[number] = pending or Pending()
        return pending

    def leave(self, kind: Kind, number: int) -> None:
        """End a subscription, server or watch; the answer to its beginning, if still due, and to this are swallowed."""
        self.closing[number] = 1 if self._pendings.pop(number, None) is None else 2
        self.put_last(kind, correlation=number)

    def watch(self, topic: bytes, subscribers: int, servers: int) -> tuple[int, Pending]:
        """A watch, and who waits until it is met."""
        number = self.number()
        self.watches.add(number)
        return number, self.ask(Kind.WATCH, number, [subscribers, servers], topic=topic)

    def unwatch(self, number: int) -> None:
        """End a watch, met or not."""
        self.watches.discard(number)
        self.leave(Kind.UNWATCH, number)

    def note_fds(self, count: int, limit: int) -> None:
        """So many descriptors came: the broker is told at half of the ``limit`` that may be on their way."""
        self._fds_received += count
        if self._fds_received - self._fds_told >= max(1, limit // 2):
            self._fds_told = self._fds_received
            self.put(Kind.RECEIVED, self._fds_received)

    def waiting(self) -> Iterable[Pending]:
        """All who wait for an answer."""
        return self._pendings.values()

    def fail(self, error: SockbusError) -> bool:
        """Nothing will be answered any more; whether somebody waited."""
        pendings, self._pendings = self._pendings, {}
        # Of some the asker was cancelled since.
        heard = any(pending.wake is not no_wake for pending in pendings.values())
        for pending in pendings.values():
            pending.fail(error)
        return heard

    def on_ok(self, run: Run) -> None:
        """Something is in force, done, or over."""
        body.nothing(run)
        number = run.correlation
        if number in self.closing:
            self.closing[number] -= 1
            if not self.closing[number]:
                del self.closing[number]
            return
        pending = self._pendings.pop(number, None)
        if pending is None:
            raise ProtocolError(f"OK came for {number}, which nobody asked for")
        pending.resolve()

    def on_receipt(self, run: Run) -> None:
        """What became of a publish."""
        receipt = Receipt(*body.integers(run, 4))
        pending = self._pendings.pop(run.correlation, None)
        if pending is not None:
            pending.resolve(receipt)

    def take(self, number: int) -> Pending | None:
        """Who waits for the answer to ``number``, if anybody; nobody does afterwards."""
        return self._pendings.pop(number, None)


def error_of(run: Run) -> SockbusError:
    """What an ERROR frame says."""
    values = body.mapping(run)
    return from_code(body.text(values, "code"), body.text(values, "text"))
