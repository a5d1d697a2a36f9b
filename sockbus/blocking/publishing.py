"""What a bus without an event loop publishes: one message after the other, or many in a batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from threading import get_ident
from typing import Literal, overload

from ..client.connecting import Connecting
from ..client.face import Face
from ..client.need import Expired, Steps
from ..client.standing import Seen
from ..fd import HasFileno
from ..interrupt import deferred, deliver, pending
from ..message import Receipt
from ..payload import Headers
from ..state import BusState
from ..transport.channel import Channel
from .departure import check_sent, finish
from .scopes import Batch, gather
from .waits import Waits

__all__ = ["Publishing"]


class Publishing(Face):
    """The part of a ``Bus`` that publishes, and knows of its connection."""

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        self._waits = Waits(channel, connecting)
        super().__init__(self._waits)
        # By thread: what it saw of the state when it last looked.
        self._seen = threading.local()

    @overload
    def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: Literal[True],
        retain: bool = False,
        timeout: float | None = None,
    ) -> Receipt: ...

    @overload
    def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: bool = False,
        retain: bool = False,
        timeout: float | None = None,
    ) -> Receipt | None: ...

    @deferred
    def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: bool = False,
        retain: bool = False,
        timeout: float | None = None,
    ) -> Receipt | None:
        """Publish a message: it has left when this returns. With ``receipt``, every match has it or has dropped it.

        ``retain``: the broker keeps it, its fds too, as the topic's last value, which later subscriptions begin with;
        payload None without fds clears. LimitExceeded when no more can be kept: it was not published then. ``fds`` are
        borrowed: they may be closed as soon as this returns. Raises InvalidTopic, PayloadError, MessageTooLarge,
        TooManyFds and PermissionDenied before anything is sent; ConnectionLost. When it ends with TimeoutError for want
        of room, or is interrupted, it was sent wholly or not at all.
        """
        waits = self._waits
        if waits.batching and not (fds or headers or receipt or retain):
            gathered = waits.batching.get(get_ident())
            if gathered is not None and gather(waits, gathered, topic, payload, timeout):
                return None
        answer: Receipt | None = None
        waits.enter()
        session = waits.session
        try:
            steps: Steps[Receipt | None] | None
            if retain:
                steps = waits.publish_retained(topic, payload, fds, headers, receipt=receipt)
            else:
                steps = waits.publish(topic, payload, fds, headers, receipt=receipt)
            if steps is not None:
                answer = waits.drive(steps, timeout)
            finish(waits, timeout)
            if answer is None and session.error is not None:
                # It may have ended before this had left.
                check_sent(waits, session)
        except Expired as expired:
            raise TimeoutError(
                f"no {'receipt' if receipt else 'answer'} for the message on {topic!r} within {expired.seconds:g} s, "
                f"though it was sent; does a subscriber not read?"
            ) from None
        finally:
            waits.busy = False
            waits.release()
            if pending.came:
                deliver()
        return answer

    def batch(self) -> Batch:
        """Let this thread's publishes in a ``with`` block leave together: at its end, or at 64 KiB."""
        return Batch(self._waits)

    @deferred
    def flush(self, *, timeout: float | None = None) -> None:
        """Wait until the broker has taken over everything published so far; ConnectionLost.

        What another thread has published in a batch that it is still in does not count.
        """
        try:
            with self._waits as waits:
                waits.drive(waits.flushed(), timeout)
        except Expired as expired:
            raise TimeoutError(
                f"the broker has not taken over everything published within {expired.seconds:g} s; does a subscriber "
                f"not read?"
            ) from None
        finally:
            deliver()

    @deferred
    def drain(self, *, timeout: float | None = None) -> None:
        """Wait until the broker has taken over everything published, and end the subscriptions.

        They take nothing new; iterations go on until what had come is taken, and end. Raises what ``flush`` raises.
        """
        try:
            with self._waits as waits:
                waits.drive(waits.drained(), timeout)
        except Expired as expired:
            raise TimeoutError(
                f"the bus was not drained within {expired.seconds:g} s; is the broker stopped?"
            ) from None
        finally:
            deliver()

    @property
    def in_doubt(self) -> int:
        """As in every runtime; it looks whether the connection is still there."""
        return self._look_what_is_in_doubt()

    @deferred
    def _look_what_is_in_doubt(self) -> int:
        with self._waits as waits:
            waits.look()
        deliver()
        return waits.in_doubt

    @property
    def state(self) -> BusState:
        """Whether there is a connection, or one is on its way."""
        return self._look_at_state()

    @deferred
    def _look_at_state(self) -> BusState:
        with self._waits as waits:
            waits.look()
            seen = self._seen.last = waits.standing.now
        deliver()
        return seen.state

    @deferred
    def state_changed(self, *, timeout: float | None = None) -> BusState:
        """Wait until ``state`` is another one than this thread saw last; CLOSED is the last, and returned at once."""
        try:
            with self._waits as waits:
                seen: Seen = getattr(self._seen, "last", waits.standing.now)
                seen = self._seen.last = waits.drive(waits.standing.after(seen), timeout)
                return seen.state
        except Expired as expired:
            raise TimeoutError(f"the bus was {self._waits.state} for {expired.seconds:g} s") from None
        finally:
            deliver()
