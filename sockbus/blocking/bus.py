"""What a program without an event loop holds: ``connect`` and ``Bus``.

Each call is the steps of ``client``, driven with the lock held. A KeyboardInterrupt comes where a call waits, or when
it has returned to its caller (``interrupt``).
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import Literal, final, overload

from ..address import Address
from ..client.answering import Handler, TaskStatus
from ..client.client import LEAVE_SECONDS
from ..client.connecting import CONNECT_SECONDS, Connecting
from ..client.face import Face
from ..client.need import Expired
from ..fd import HasFileno
from ..interrupt import deferred, deliver, install, is_due, pending, uninstall
from ..message import Message, Receipt, Will
from ..payload import Headers
from ..protocol.handshake import check_name
from ..transport.channel import Channel
from .parker import reentered
from .poller import drive_dialling
from .scopes import Background, Batch, gather
from .subscription import Subscription
from .waits import Waits
from .workers import Workers

__all__ = ["Bus", "connect"]


@final
class connect:  # noqa: N801  # used like a function
    """Connect to a broker: a context manager that gives a ``Bus``.

    ``address`` is text or an ``Address``; None is ``$SOCKBUS_ADDRESS``, else the user's default bus. ``name`` is what
    others see as ``sender.name``. ``will`` is published in this program's name when it goes without leaving the block:
    when it is killed, or cut off. The first connection is tried once, for ``timeout`` seconds (None: for ever; looking
    up the name of a host takes as long as it takes): ConnectError says where and why it failed. Leaving the block waits
    until the broker has taken over everything published, 5 s at most, and then raises LimitExceeded. A block left by an
    exception lets that through, with a note where leaving failed as well. Other threads' calls end with ConnectionLost
    when it is left.

    While a bus is open a handler of sockbus stands in for Python's own SIGINT handler (and for no other), which raises
    KeyboardInterrupt where that tears nothing.
    """

    def __init__(
        self,
        address: str | Address | None = None,
        *,
        name: str | None = None,
        will: Will | None = None,
        timeout: float | None = CONNECT_SECONDS,
    ) -> None:
        self._address = address
        self._name = check_name(name)
        self._will = will
        self._timeout = timeout

    @deferred
    def __enter__(self) -> Bus:
        install()
        try:
            deadline = None if self._timeout is None else monotonic() + self._timeout
            connecting = Connecting(self._address, self._name, self._will, self._timeout or 0.0)
            channel = drive_dialling(connecting.dialled(), self._timeout)
            try:
                bus = Bus(channel, connecting.road)
            except OSError:
                # No descriptor was left for it.
                channel.transport.close()
                raise
            bus._open(connecting, None if deadline is None else deadline - monotonic())
            if is_due():
                with bus._waits as waits:
                    waits.close()
                deliver()
        except BaseException:
            uninstall()
            raise
        self._bus = bus
        return bus

    @deferred
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._bus._leave(error)
        finally:
            uninstall()
            deliver()


@final
class Bus(Face):
    """A connection to a broker, as ``connect`` gives it. Any number of threads may use it at once.

    ``timeout`` is in seconds, None for ever; TimeoutError says what did not come about. When the broker goes, calls and
    iterations raise ConnectionLost.
    """

    def __init__(self, channel: Channel, address: str) -> None:
        super().__init__(channel, address)
        self._waits = Waits(channel)

    def _open(self, connecting: Connecting, timeout: float | None) -> None:
        waits = self._waits
        with waits:
            try:
                waits.flush()
                waits.drive(connecting.welcomed(waits), timeout)
            except BaseException:
                waits.close()
                raise

    def _leave(self, error: BaseException | None) -> None:
        waits = self._waits
        with waits:
            try:
                waits.drive(waits.leaving(error, cancelled=False), LEAVE_SECONDS)
            finally:
                waits.close()

    # Publishing and subscribing

    @overload
    def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: Literal[True],
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
        timeout: float | None = None,
    ) -> Receipt | None:
        """Publish a message: it has left when this returns. With ``receipt``, every match has it or has dropped it.

        ``fds`` are borrowed: they may be closed as soon as this returns. Raises InvalidTopic, PayloadError,
        MessageTooLarge, TooManyFds and PermissionDenied before anything is sent; ConnectionLost. When it ends with
        TimeoutError for want of room, or is interrupted, it was sent wholly or not at all.
        """
        waits = self._waits
        if waits.batching and not (fds or headers or receipt):
            gathered = waits.batching.get(get_ident())
            if gathered is not None and gather(waits, gathered, topic, payload, timeout):
                return None
        answer: Receipt | None = None
        waits.acquire()
        if waits.busy:
            waits.release()
            raise reentered()
        waits.busy = True
        try:
            steps = waits.publish(topic, payload, fds, headers, receipt=receipt)
            if steps is not None:
                answer = waits.drive(steps, timeout)
            waits.finish(timeout)
            if answer is None and waits.session.error is not None:
                # It may have ended before this had left.
                waits.session.check()
        except Expired as expired:
            raise TimeoutError(
                f"no receipt for the message on {topic!r} within {expired.seconds:g} s, though it was sent; does a "
                f"subscriber not read?"
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

    def subscribe(
        self,
        pattern: str,
        *,
        group: str | None = None,
        fds: str = "reject",
        capacity: int = 1024,
        capacity_bytes: int = 4 << 20,
        overflow: Literal["block", "drop_oldest", "drop_newest", "latest", "disconnect"] = "block",
        stall: float | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Subscribe to a pattern: a context manager, in force at the broker once entered, within ``timeout`` seconds.

        ``group``: share the messages with the other members of that name and pattern. ``capacity``,
        ``capacity_bytes``: what may wait here before publishers wait, or before ``overflow`` drops instead:
        "drop_oldest", "drop_newest", "latest" (all but the newest of each topic), or "disconnect", which ends the
        subscription. ``stall``: a subscription that makes publishers wait and takes nothing for so many seconds is
        ended (None: as the broker has it; math.inf: never). Taking from one that was ended raises
        SubscriptionStalled, after what had come. ``fds``: where the link cannot carry descriptors, "reject" such
        messages (they count as lost) or "strip" them. Entering raises InvalidTopic, LimitExceeded and ConnectionLost.
        """
        return Subscription(self._waits, pattern, group, fds, capacity, capacity_bytes, overflow, stall, timeout)

    # Requests

    @deferred
    def request(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        timeout: float | None = 5.0,
    ) -> Message:
        """Ask one server of the topic and wait ``timeout`` seconds for its reply (None: for ever).

        Raises NoResponders at once when nobody serves it, ResponderLost, RequestTimeout, RemoteError, and what
        ``publish`` raises. Interrupted, its reply is thrown away.
        """
        try:
            with self._waits as waits:
                return waits.drive(waits.request(topic, payload, fds, headers), timeout)
        finally:
            if pending.came:
                deliver()

    @deferred
    def serve(
        self,
        pattern: str,
        handler: Handler,
        *,
        concurrency: int = 64,
        task_status: TaskStatus | None = None,
        timeout: float | None = None,
    ) -> None:
        """Answer requests on a pattern, in this thread, until the bus is left or ``timeout`` seconds have passed.

        ``handler(message)`` returns the reply's payload or a ``Reply``; what it raises becomes the requester's
        RemoteError, and what is no Exception comes out of here. Up to ``concurrency`` handlers run at once: the first
        in this thread, and where it takes long, others in threads that end with this call. The request's fds close
        when its handler is done. ``task_status`` is told when this is in force: an Event, which is set, or an object
        with ``started()``. Raises InvalidTopic, PermissionDenied, LimitExceeded and ConnectionLost; TypeError for an
        async handler.
        """
        try:
            Workers(self._waits, handler).serve(pattern, concurrency, task_status, timeout)
        finally:
            deliver()

    def background(self) -> Background:
        """For programs that compute for long: a thread that reads what comes, for as long as a ``with`` block lasts.

        Credit then goes back, and requests are noticed, also while no call of this bus is running.
        """
        return Background(self._waits)
