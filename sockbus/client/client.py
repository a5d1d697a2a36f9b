"""What the calls of one connection do between their waits.

A ``Client`` has the session and its channel, and the gates at which calls wait for room. Each runtime derives its own
from it and says how to wait for the socket. Publishing has a short way without steps, for most messages wait for
nothing: it yields by time, after a millisecond, or by 64 KiB. (A turn for each message left a fifth of the speed:
``python -m benchmarks throughput``.)
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from ..errors import ConnectionLost, LimitExceeded, RequestTimeout, SockbusError
from ..fd import HasFileno
from ..message import Message, Receipt
from ..payload import Headers
from ..protocol.frame import Flag
from ..protocol.inbox import fit
from ..protocol.mailbox import Mailbox, Service
from ..protocol.outbox import Lane
from ..protocol.pending import Pending
from ..protocol.sender import Outgoing
from ..transport.channel import Channel
from ..transport.inheritance import go_on, let_go, look_around
from .need import TURN, Expired, Gate, Steps

__all__ = ["LATER_SECONDS", "LEAVE_SECONDS", "TICK_SECONDS", "Client", "no_room"]

# Seconds that leaving waits for what was published.
LEAVE_SECONDS = 5.0
# Credit must be back a second after consumption: two ticks.
TICK_SECONDS = 0.5
# Seconds until a send is tried again that met a limit of the kernel's, which readiness does not show.
LATER_SECONDS = 0.01


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client(ABC):
    """The calls of one connection. It owns the channel."""

    #: seconds that one task may go on without letting others run, and the queue at which a publisher sends and yields
    yield_seconds = 0.001
    yield_bytes = 1 << 16

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.session = channel.session
        self.session.room = self._on_room
        self.session.request_ended = self._on_request_ended
        #: when a task of this bus last let others run
        self.yielded = 0.0
        #: whether ``flush_soon`` has something to do
        self.writer_sleeps = False
        self._pid = os.getpid()
        self._room = Gate()
        self._slots = Gate()
        _clients.add(self)
        self._flushers = Gate()
        self._is_flushing = False

    # What a runtime supplies

    @abstractmethod
    def send_rest(self) -> None:
        """The socket took no more: see to it that ``channel.unblock`` is called when ``channel.blocked`` has passed."""

    @abstractmethod
    def flush_soon(self) -> None:
        """Send what is queued soon, together with what is queued until then."""

    # Sending

    def flush(self) -> None:
        """Send what is queued now, as far as the socket takes it; the rest leaves by itself."""
        self.channel.flush()
        if self.channel.blocked is not None:
            self.send_rest()

    def flush_urgent(self) -> None:
        """Send now what should not wait for a program that computes."""
        if self.session.orders.urgent:
            self.flush()

    def turn(self) -> Steps[None]:
        """Let others run."""
        yield TURN
        self.yielded = perf_counter()

    def turn_if_due(self) -> Steps[None]:
        """Let others run, once a millisecond."""
        if perf_counter() - self.yielded > self.yield_seconds:
            yield from self.turn()

    def publish(
        self, topic: str, payload: object, fds: Sequence[int | HasFileno], headers: Headers | None, *, receipt: bool
    ) -> Steps[Any] | None:
        """Queue a message: None when that is all, else what is still to be done, with the receipt in the end."""
        session = self.session
        if session.error is not None:
            session.check()
        if fds or headers or receipt:
            outgoing = session.sender.publish(topic, payload, fds, headers, flags=Flag.RECEIPT if receipt else 0)
            return self._publish(topic, outgoing, answered=receipt)
        frame = session.sender.plain(topic, payload)
        if not isinstance(frame, bytes):
            return self._publish(topic, frame, answered=False)
        window = session.sender.publishes
        if window.sent_bytes >= window.granted_bytes:
            return self._publish_plain(topic, frame)
        window.sent_bytes += len(frame)
        outbox = session.outbox
        outbox.put_small(frame)
        if outbox.queued_bytes >= self.yield_bytes:
            self.flush()
            return self.turn()
        if self.writer_sleeps:
            self.flush_soon()
        if perf_counter() - self.yielded > self.yield_seconds:
            return self.turn()
        return None

    def publish_retained(
        self, topic: str, payload: object, fds: Sequence[int | HasFileno], headers: Headers | None, *, receipt: bool
    ) -> Steps[Receipt | None]:
        """Publish what the broker is to keep, and wait until it does."""
        session = self.session
        session.check()
        flags = Flag.RETAIN | Flag.RECEIPT if receipt else Flag.RETAIN
        outgoing = session.sender.publish(topic, payload, fds, headers, flags=flags)
        return self._publish(topic, outgoing, answered=True)

    def _publish_plain(self, topic: str, frame: bytes) -> Steps[None]:
        session = self.session
        window = session.sender.publishes
        while window.sent_bytes >= window.granted_bytes:
            self.flush()
            try:
                yield self._room
            except Expired as expired:
                raise no_room(topic, expired) from None
            session.check()
        window.sent_bytes += len(frame)
        session.outbox.put_small(frame)
        if self.writer_sleeps:
            self.flush_soon()
        yield from self.turn_if_due()

    def put_gathered(self, gathered: bytearray) -> Steps[None]:
        """Queue small publishes, whole frames of at most 64 KiB in all, as soon as there is room for them."""
        session = self.session
        window = session.sender.publishes
        while gathered:
            session.check()
            if window.sent_bytes >= window.granted_bytes:
                self.flush()
                yield self._room
                continue
            _, end = fit(gathered, 0, len(gathered), len(gathered), window.granted_bytes - window.sent_bytes)
            session.outbox.put(Lane.MESSAGES, bytes(gathered[:end]))
            window.sent_bytes += end
            del gathered[:end]
        self.flush()

    def _publish(self, topic: str, outgoing: Outgoing, *, answered: bool) -> Steps[Receipt | None]:
        try:
            yield from self.send(outgoing)
        except Expired as expired:
            raise no_room(topic, expired) from None
        if answered:
            answer: Receipt | None = yield from self.result(self.session.await_receipt(outgoing))
            return answer
        yield from self.turn_if_due()
        return None

    def send(self, outgoing: Outgoing) -> Steps[None]:
        """Queue a message when there is room, and send what the socket takes. Given up, it was not queued."""
        session = self.session
        try:
            while not session.send(outgoing):
                yield self._slots if session.must_wait_for_reply(outgoing) else self._room
        except BaseException:
            # The place that it was woken for, if it was, is the next one's.
            self._slots.open()
            raise
        self.flush()

    def flushed(self) -> Steps[None]:
        """Wait until the broker has taken over everything published so far."""
        while self._is_flushing:
            # In a forked child it may be flushing for ever, by a thread that only the parent has.
            self.session.check()
            yield self._flushers
        self._is_flushing = True
        try:
            # An earlier one may have been given up before its answer came, and one at a time may be asked for.
            if self.session.flushing is not None:
                yield from self.result(self.session.flushing)
            pending = self.session.flush()
            self.flush()
            yield from self.result(pending)
        finally:
            self._is_flushing = False
            self._flushers.open()

    # Asking

    def result(self, pending: Pending) -> Steps[Any]:
        """Wait for an answer, and give or raise it."""
        if not pending.done:
            yield pending
        return pending.result()

    def request(
        self,
        topic: str,
        payload: object,
        fds: Sequence[int | HasFileno],
        headers: Headers | None,
    ) -> Steps[Message]:
        """Ask, and wait for the reply."""
        session = self.session
        session.check()
        outgoing = session.sender.request(topic, payload, fds, headers)
        try:
            yield from self.send(outgoing)
            # Nothing is waited for between sending and this, so that a request that is given up is always taken back.
            pending = session.await_reply(outgoing, topic)
            try:
                reply: Message = yield from self.result(pending)
                return reply
            finally:
                session.end_request(outgoing)
                self.flush_urgent()
        except Expired as expired:
            raise RequestTimeout(topic, expired.seconds) from None

    def serve(self, pattern: str, concurrency: int) -> Steps[Service]:
        """Register a server, and wait until it is in force; ``leave`` must follow."""
        service, pending = self.session.serve(pattern, concurrency)
        try:
            self.flush()
            yield from self.result(pending)
        except BaseException:
            self.leave(service)
            raise
        return service

    def leave(self, box: Mailbox | Service) -> None:
        """End a subscription or a service."""
        self.session.leave(box)
        self.flush_urgent()

    # The end

    def leaving(self, error: BaseException | None, *, cancelled: bool) -> Steps[None]:
        """Leave the block: wait until the broker has taken over everything, unless it was cancelled; say goodbye.

        ``error`` is what the block is left by; it gets a note when leaving fails besides.
        """
        session = self.session
        was_flushed = session.is_flushed
        try:
            if session.error is None and not cancelled:
                yield from self._taken_over()
            elif session.unheard and error is None:
                session.check()
        except SockbusError as failure:
            if error is not None:
                error.add_note(f"besides, leaving the bus failed: {failure}")
            elif session.error is None or not was_flushed:
                raise
        finally:
            session.goodbye()
            self.channel.flush()

    def _taken_over(self) -> Steps[None]:
        try:
            yield from self.flushed()
        except Expired as expired:
            raise LimitExceeded(
                f"the broker has not taken over everything published within {expired.seconds:g} s of leaving; "
                f"does a subscriber not read?"
            ) from None

    def forked(self) -> None:
        """This process is a child that has inherited the connection, which goes on being its parent's."""
        self.channel.abandon(
            ConnectionLost(
                f"this bus was inherited by fork from process {self._pid}, whose connection it is; connect again in "
                f"this process"
            )
        )

    # The session's side

    def _on_room(self) -> None:
        self._room.open_all()
        if self.session.error is not None:
            self._slots.open_all()
            self._flushers.open_all()

    def _on_request_ended(self) -> None:
        # One request has ended, and so one may start: all at once would look again in vain, time after time.
        self._slots.open()


def no_room(topic: str, expired: Expired) -> TimeoutError:
    """What a publish raises that has waited for room in vain."""
    return TimeoutError(
        f"there was no room for the message on {topic!r} within {expired.seconds:g} s, and it was not sent; does a "
        f"subscriber not read?"
    )


def _fork() -> None:
    try:
        let_go()
    finally:
        for client in list(_clients):
            client.forked()


os.register_at_fork(before=look_around, after_in_parent=go_on, after_in_child=_fork)
