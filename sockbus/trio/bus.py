"""What a Trio program holds: ``connect`` and ``Bus``."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, final, overload

import trio

from ..address import Address
from ..client.answering import Handler
from ..client.client import LEAVE_SECONDS
from ..client.connecting import CONNECT_SECONDS, Connecting
from ..client.face import Face
from ..fd import HasFileno
from ..message import Message, Receipt
from ..payload import Headers
from ..protocol.handshake import check_name
from ..transport.channel import Channel
from .subscription import Subscription
from .waits import Waits, drive, is_cancelled
from .workers import Workers

__all__ = ["Bus", "connect"]


@final
class connect:  # noqa: N801  # used like a function
    """Connect to a broker: an async context manager that gives a ``Bus``.

    ``address`` is text or an ``Address``; None is ``$SOCKBUS_ADDRESS``, else the user's default bus. ``name`` is what
    others see as ``sender.name``. The first connection is tried once: ConnectError says where and why it failed.
    Leaving the block waits until the broker has taken over everything published, 5 s at most, and then raises
    LimitExceeded. A block left by an exception lets that through, with a note where leaving failed as well; one that
    is cancelled does not wait.
    """

    def __init__(self, address: str | Address | None = None, *, name: str | None = None) -> None:
        self._address = address
        self._name = check_name(name)

    async def __aenter__(self) -> Bus:
        connecting = Connecting(self._address, self._name, CONNECT_SECONDS)
        deadline = trio.current_time() + CONNECT_SECONDS
        channel = await drive(connecting.dialled(), CONNECT_SECONDS)
        self._bus = Bus(channel, connecting.road)
        await self._bus._open(connecting, deadline)
        return self._bus

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._bus._leave(error)


@final
class Bus(Face):
    """A connection to a broker, as ``connect`` gives it. Any number of tasks may use it at once.

    When the broker goes, calls and iterations raise ConnectionLost.
    """

    def __init__(self, channel: Channel, address: str) -> None:
        super().__init__(channel, address)
        self._waits = Waits(channel)

    async def _open(self, connecting: Connecting, deadline: float) -> None:
        await self._waits.open()
        is_open = False
        try:
            await drive(connecting.welcomed(self._waits), deadline - trio.current_time())
            is_open = True
        finally:
            if not is_open:
                await self._waits.close()

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await drive(self._waits.leaving(error, cancelled=is_cancelled(error)), LEAVE_SECONDS)
        finally:
            await self._waits.close()

    # Publishing and subscribing

    @overload
    async def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: Literal[True],
    ) -> Receipt: ...

    @overload
    async def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: bool = False,
    ) -> Receipt | None: ...

    @trio.lowlevel.enable_ki_protection
    async def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: bool = False,
    ) -> Receipt | None:
        """Publish a message; waits only for room. With ``receipt``, waits until every match has it or has dropped it.

        ``fds`` are borrowed: they may be closed as soon as this returns. Raises InvalidTopic, PayloadError,
        MessageTooLarge, TooManyFds and PermissionDenied before anything is sent; ConnectionLost. Cancelled, it was
        sent wholly or not at all.
        """
        steps = self._waits.publish(topic, payload, fds, headers, receipt=receipt)
        return None if steps is None else await drive(steps)

    async def flush(self) -> None:
        """Wait until the broker has taken over everything published so far; ConnectionLost."""
        await drive(self._waits.flushed())

    def subscribe(
        self,
        pattern: str,
        *,
        group: str | None = None,
        fds: str = "reject",
        capacity: int = 1024,
        capacity_bytes: int = 4 << 20,
    ) -> Subscription:
        """Subscribe to a pattern: an async context manager, in force at the broker once entered.

        ``group``: share the messages with the other members of that name and pattern. ``capacity``,
        ``capacity_bytes``: what may wait here before publishers wait. ``fds``: where the link cannot carry
        descriptors, "reject" such messages (they count as lost) or "strip" them. Entering raises InvalidTopic,
        LimitExceeded and ConnectionLost.
        """
        return Subscription(self._waits, pattern, group, fds, capacity, capacity_bytes)

    # Requests

    async def request(
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
        ``publish`` raises. Cancelled, its reply is thrown away.
        """
        return await drive(self._waits.request(topic, payload, fds, headers), timeout)

    async def serve(
        self,
        pattern: str,
        handler: Handler,
        *,
        concurrency: int = 64,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer requests on a pattern until cancelled; ``nursery.start`` returns once it is in force.

        ``handler(message)``, plain or async, returns the reply's payload or a ``Reply``; what it raises becomes the
        requester's RemoteError. ``concurrency`` handlers run at once at most; the request's fds close when its
        handler is done. Raises InvalidTopic, PermissionDenied, LimitExceeded and ConnectionLost.
        """
        service = await drive(self._waits.serve(pattern, concurrency))
        try:
            task_status.started()
            await Workers(self._waits, service, handler).run()
            self._session.check()
        finally:
            self._waits.leave(service)
