"""Publishing and sending: what a connection's calls do with what they give away.

Publishing has a short way without steps, for most messages wait for nothing: it yields by time, after a millisecond, or
by 64 KiB. (A turn for each message left a fifth of the speed: ``python -m benchmarks throughput``.) It takes the
``detour`` while there is no connection, or what waited for one is still to leave first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from ..fd import HasFileno
from ..message import Receipt
from ..payload import Headers
from ..protocol.backlog import Backlog
from ..protocol.frame import Flag, Kind, stamped
from ..protocol.inbox import fit
from ..protocol.outbox import COPIED_BYTES, Lane
from ..protocol.pending import Pending
from ..protocol.sender import Outgoing, Sender
from ..protocol.session import Session
from ..transport.channel import Channel
from .need import TURN, Expired, Gate, Steps

__all__ = ["Sending"]


class Sending(ABC):
    """What every runtime's client sends by. It owns the channel."""

    #: seconds that one task may go on without letting others run, and the queue at which a publisher sends and yields
    yield_seconds = 0.001
    yield_bytes = 1 << 16

    def __init__(self, channel: Channel, buffer_bytes: int) -> None:
        self.channel = channel
        self.session = channel.session
        # What is asked for each message is found at once in the instance; in its class, only by way of all its bases.
        self.yield_seconds = self.yield_seconds
        self.yield_bytes = self.yield_bytes
        #: when a task of this bus last let others run
        self.yielded = 0.0
        #: whether ``flush_soon`` has something to do
        self.writer_sleeps = False
        #: published, and not begun to be written by any connection
        self.backlog = Backlog(buffer_bytes)
        #: whether a publish cannot simply be queued with the session
        self.detour = False
        # What the socket had not taken when a publisher last yielded for that.
        self._rest_bytes = 0
        self._room = Gate()
        self._slots = Gate()

    # What a runtime supplies

    @abstractmethod
    def send_rest(self) -> None:
        """The socket took no more: see to it that ``channel.unblock`` is called when ``channel.blocked`` has passed."""

    @abstractmethod
    def flush_soon(self) -> None:
        """Send what is queued soon, together with what is queued until then."""

    # What ``Keeping`` supplies

    @abstractmethod
    def check(self) -> None:
        """Raise why this bus is of no use any more, if it is not."""

    @abstractmethod
    def check_connected(self) -> None:
        """Raise why nothing can be sent, unless there is a connection, or it may be waited for."""

    @property
    @abstractmethod
    def why_away(self) -> str:
        """Why there is no connection, and what to do, for the end of a sentence; empty while there is one."""

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
        if self.detour:
            self.check_connected()
        if fds or headers or receipt:
            outgoing = session.sender.publish(topic, payload, fds, headers, flags=Flag.RECEIPT if receipt else 0)
            return self._publish(topic, outgoing, answered=receipt)
        frame = session.sender.plain(topic, payload)
        if not isinstance(frame, bytes):
            return self._publish(topic, frame, answered=False)
        window = session.sender.publishes
        if self.detour or window.sent_bytes >= window.granted_bytes:
            return self._publish_plain(topic, frame, session.sender)
        size = len(frame)
        window.sent_bytes += size
        window.sent_messages += 1
        outbox = session.outbox
        outbox.put_small(frame, size)
        if outbox.queued_bytes + size > self.yield_bytes and self._send_full(size):
            return self.turn()
        if self.writer_sleeps:
            self.flush_soon()
        if perf_counter() - self.yielded > self.yield_seconds:
            return self.turn()
        return None

    def _send_full(self, size: int) -> bool:
        """Send what is queued when one more frame of ``size`` would go beyond 64 KiB; whether it is time to yield.

        A small frame too many would be a batch of its own, and a wake-up; large ones make their own batches anyhow. A
        socket that is full makes publishers yield for each 64 KiB more, not for each frame.
        """
        outbox = self.session.outbox
        if size > COPIED_BYTES and outbox.queued_bytes < self.yield_bytes:
            return False
        self.flush()
        queued = outbox.queued_bytes
        rest = min(self._rest_bytes, queued)
        is_time = self.channel.blocked is None or queued - rest >= self.yield_bytes
        self._rest_bytes = queued if is_time else rest
        return is_time

    def publish_retained(
        self, topic: str, payload: object, fds: Sequence[int | HasFileno], headers: Headers | None, *, receipt: bool
    ) -> Steps[Receipt | None]:
        """Publish what the broker is to keep, and wait until it does."""
        self.check_connected()
        flags = Flag.RETAIN | Flag.RECEIPT if receipt else Flag.RETAIN
        outgoing = self.session.sender.publish(topic, payload, fds, headers, flags=flags)
        return self._publish(topic, outgoing, answered=True)

    def _publish_plain(self, topic: str, frame: bytes, composer: Sender) -> Steps[None]:
        try:
            while True:
                sender = self.session.sender
                if sender is not composer:
                    frame, composer = stamped(frame, sender.number), sender
                window = sender.publishes
                if self.detour:
                    self.check_connected()
                    if self.backlog.has_room:
                        self.backlog.put_frames(frame)
                        yield from self.turn_if_due()
                        return
                elif window.sent_bytes < window.granted_bytes:
                    break
                else:
                    self.flush()
                yield self._room
        except Expired as expired:
            raise self.no_room(topic, expired) from None
        size = len(frame)
        window.sent_bytes += size
        window.sent_messages += 1
        self.session.outbox.put_small(frame, size)
        if self.writer_sleeps:
            self.flush_soon()
        yield from self.turn_if_due()

    def put_gathered(self, gathered: bytearray) -> Steps[None]:
        """Queue small publishes, whole frames of at most 64 KiB in all, as soon as there is room for them."""
        while gathered:
            session = self.session
            window = session.sender.publishes
            if self.detour:
                self.check_connected()
                if self.backlog.has_room:
                    self.backlog.put_frames(gathered)
                    gathered.clear()
                    break
            elif window.sent_bytes < window.granted_bytes:
                room = window.granted_bytes - window.sent_bytes
                count, end = fit(gathered, 0, len(gathered), len(gathered), room)
                session.outbox.put(Lane.MESSAGES, bytes(gathered[:end]))
                window.sent_bytes += end
                window.sent_messages += count
                del gathered[:end]
                continue
            else:
                self.flush()
            yield self._room
        self.flush()

    def _publish(self, topic: str, outgoing: Outgoing, *, answered: bool) -> Steps[Receipt | None]:
        pending = outgoing.pending = Pending() if answered else None
        try:
            yield from self.send(outgoing)
        except Expired as expired:
            raise self.no_room(topic, expired) from None
        if pending is not None:
            answer: Receipt | None = yield from self.result(pending)
            return answer
        yield from self.turn_if_due()
        return None

    def send(self, outgoing: Outgoing) -> Steps[Session]:
        """Queue a message when there is room, and send what the socket takes; the session it leaves by.

        Given up, it was not queued. A reply to a call of a session that has ended is dropped; one to a call that came
        while all is being put in force waits until that is done.
        """
        is_reply = outgoing.kind is Kind.REPLY
        try:
            while True:
                session = self.session
                gate = self._room
                if is_reply and outgoing.sender.is_over:
                    return session
                if not is_reply and outgoing.sender is not session.sender:
                    session.sender.adopt(outgoing)
                if outgoing.sender is not session.sender:
                    # A reply, by a connection that is still being made.
                    self.check()
                elif self.detour and (outgoing.kind is Kind.PUBLISH or session.error is not None):
                    self.check_connected()
                    limit_fds = session.limits["link_fds"]
                    if outgoing.kind is Kind.PUBLISH and self.backlog.has_room_for(outgoing, limit_fds):
                        self.backlog.put(outgoing)
                        return session
                elif session.send(outgoing):
                    break
                elif outgoing.kind is Kind.REQUEST and session.must_wait_for_reply():
                    gate = self._slots
                yield gate
        except BaseException:
            # The place that it was woken for, if it was, is the next one's.
            self._slots.open()
            raise
        self.flush()
        return session

    def no_room(self, topic: str, expired: Expired) -> TimeoutError:
        """What a publish raises that has waited for room in vain."""
        why = self.why_away
        return TimeoutError(
            f"there was no room for the message on {topic!r} within {expired.seconds:g} s, and it was not sent"
            + (f": {why}" if why else "; does a subscriber not read?")
        )

    def result(self, pending: Pending) -> Steps[Any]:
        """Wait for an answer, and give or raise it."""
        if not pending.done:
            yield pending
        return pending.result()

    # The session's side

    def _on_room(self) -> None:
        if self.session.error is None and self.backlog:
            self._feed()
        self._room.open_all()

    def _feed(self) -> None:
        self.backlog.feed(self.session)
        self.detour = bool(self.backlog)
        self.flush()

    def _on_request_ended(self) -> None:
        # One request has ended, and so one may start: all at once would look again in vain, time after time.
        if self._slots.waiting:
            self._slots.open()
