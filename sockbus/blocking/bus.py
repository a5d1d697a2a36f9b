"""What a program without an event loop holds: the ``Bus``.

Each call is the steps of ``client``, driven with the lock held. A KeyboardInterrupt comes where a call waits, or when
it has returned to its caller (``interrupt``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

from ..client.answering import Handler, TaskStatus
from ..client.client import LEAVE_SECONDS
from ..client.watching import waited_for
from ..fd import HasFileno
from ..interrupt import deferred, deliver, pending
from ..message import Message
from ..payload import Headers
from .publishing import Publishing
from .scopes import Background
from .subscription import Subscription
from .workers import Workers

__all__ = ["Bus"]


@final
class Bus(Publishing):
    """A connection to a broker, as ``connect`` gives it. Any number of threads may use it at once.

    ``timeout`` is in seconds, None for ever; TimeoutError says what did not come about.
    """

    def _open(self, timeout: float | None) -> None:
        waits = self._waits
        with waits:
            try:
                waits.flush()
                waits.drive(waits.connecting.welcomed(waits.session, waits.flush), timeout)
                waits.opened()
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

    # Subscribing and asking

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
        waits = self._waits
        waits.enter()
        try:
            return waits.drive(waits.request(topic, payload, fds, headers), timeout)
        finally:
            waits.busy = False
            waits.release()
            if pending.came:
                deliver()

    @deferred
    def wait_for(
        self, pattern: str, *, subscribers: int | None = None, servers: int | None = None, timeout: float | None = None
    ) -> None:
        """Wait until so many subscriptions and servers are there for a topic or pattern; by default one subscription.

        There are those whose pattern some topic of this one matches, this bus's own included; each member of a group
        counts. TimeoutError when they are not there within ``timeout`` seconds; InvalidTopic, LimitExceeded and
        ConnectionLost.
        """
        try:
            with self._waits as waits:
                waits.drive(waited_for(waits, pattern, subscribers, servers), timeout)
        finally:
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
