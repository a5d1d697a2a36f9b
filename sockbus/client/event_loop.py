"""The bus of programs with an event loop: what Trio's and asyncio's have in common, which is all but the waiting.

An ``async def`` belongs to no runtime as long as it awaits only what is given to it: ``Waits``, which a runtime derives
from ``EventLoopClient``. ``connect`` and ``Bus`` of a runtime derive from what is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from threading import get_ident
from types import TracebackType
from typing import ClassVar, Generic, Literal, TypeVar, overload

from ..address import Address
from ..fd import HasFileno
from ..message import Message, Receipt, Will
from ..payload import Headers
from ..protocol.handshake import check_name
from ..protocol.mailbox import Service
from ..state import BusState
from ..transport.channel import Channel
from .answering import Handler, TaskStatus, check_served, new_service, tell_started
from .client import LEAVE_SECONDS, Client
from .connecting import BUFFER_BYTES, CONNECT_SECONDS, Connecting, Reconnect, check_reconnect
from .face import Face
from .need import Steps
from .subscription import Subscription
from .watching import waited_for

__all__ = ["Connect", "EventLoopBus", "EventLoopClient"]

T = TypeVar("T")
B = TypeVar("B", bound="EventLoopBus")


class EventLoopClient(Client):
    """What a runtime with an event loop supplies besides."""

    instead = "connect again in this process, outside the event loop that it has inherited too"

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        super().__init__(channel, connecting)
        self._thread = get_ident()

    def forked(self) -> None:
        if get_ident() != self._thread:
            # The child has the thread that forked, and not the loop: its tasks are not to be woken.
            self.forget()
        super().forked()

    @staticmethod
    @abstractmethod
    async def drive(steps: Steps[T], timeout: float | None = None) -> T:
        """Wait for what the steps need until they are done, and return what they do.

        After ``timeout`` seconds they get ``Expired``. Cancelled, they are closed where they wait.
        """

    @staticmethod
    @abstractmethod
    async def sleep(seconds: float) -> None:
        """Wait for so long."""

    @staticmethod
    @abstractmethod
    def clock() -> float:
        """Seconds, for deadlines."""

    @staticmethod
    @abstractmethod
    def is_cancelled(error: BaseException | None) -> bool:
        """Whether a block is left because it was cancelled, wholly."""

    @abstractmethod
    async def open(self) -> None:
        """Begin to read and write; ``close`` must follow in the same task."""

    @abstractmethod
    async def close(self) -> None:
        """Stop reading and writing, and close the socket; neither cancelled nor raising."""

    async def keep(self) -> None:
        """After the end of a connection: make attempts at another one until one succeeds, or the bus has ended."""
        self.channel.close()
        self.report_all()
        while self.session.error is not None and self.error is None:
            await self.sleep(self.pause())
            await self.drive(self.reconnect(), CONNECT_SECONDS)
            self.report_all()

    @abstractmethod
    async def work(self, service: Service, handler: Handler) -> None:
        """Run the handler for the calls of a service, until cancelled or the session has ended."""


class Connect(Generic[B]):
    """``connect`` of a runtime, whose docstring is its users'."""

    _bus_type: type[B]

    def __init__(
        self,
        address: str | Address | None = None,
        *,
        name: str | None = None,
        reconnect: Reconnect = "wait",
        will: Will | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        check_name(name)
        check_reconnect(reconnect, buffer_bytes)
        self._how = (address, name, will, reconnect, buffer_bytes)

    async def __aenter__(self) -> B:
        waits_type = self._bus_type._waits_type
        connecting = Connecting(*self._how)
        try:
            deadline = waits_type.clock() + CONNECT_SECONDS
        except RuntimeError as error:
            package = type(self).__module__.rpartition(".")[0]
            raise RuntimeError(
                f"{package} cannot connect where its event loop does not run ({error}); take sockbus.trio under Trio, "
                f"sockbus.asyncio under asyncio, and in a process that was forked inside of either a loop of its own"
            ) from None
        channel = await waits_type.drive(connecting.dialled(), CONNECT_SECONDS)
        self._bus = self._bus_type(channel, connecting)
        await self._bus._open(deadline)
        return self._bus

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._bus._leave(error)


class EventLoopBus(Face):
    """A connection to a broker, as ``connect`` gives it. Any number of tasks may use it at once."""

    _waits_type: ClassVar[type[EventLoopClient]]

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        self._waits = self._waits_type(channel, connecting)
        super().__init__(self._waits)

    async def _open(self, deadline: float) -> None:
        waits = self._waits
        await waits.open()
        is_open = False
        try:
            await waits.drive(waits.connecting.welcomed(waits.session, waits.flush), deadline - waits.clock())
            waits.opened()
            is_open = True
        finally:
            if not is_open:
                await waits.close()

    async def _leave(self, error: BaseException | None) -> None:
        waits = self._waits
        try:
            await waits.drive(waits.leaving(error, cancelled=waits.is_cancelled(error)), LEAVE_SECONDS)
        finally:
            await waits.close()

    @overload
    async def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: Literal[True],
        retain: bool = False,
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
        retain: bool = False,
    ) -> Receipt | None: ...

    async def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        receipt: bool = False,
        retain: bool = False,
    ) -> Receipt | None:
        """Publish a message; waits only for room. With ``receipt``, waits until every match has it or has dropped it.

        ``retain``: waits until the broker keeps it, its fds too, as the topic's last value, which later subscriptions
        begin with; payload None without fds clears. LimitExceeded when no more can be kept: it was not published then.
        ``fds`` are borrowed: they may be closed as soon as this returns. Raises InvalidTopic, PayloadError,
        MessageTooLarge, TooManyFds and PermissionDenied before anything is sent; ConnectionLost. Cancelled, it was
        sent wholly or not at all.
        """
        waits = self._waits
        if retain:
            return await waits.drive(waits.publish_retained(topic, payload, fds, headers, receipt=receipt))
        steps = waits.publish(topic, payload, fds, headers, receipt=receipt)
        return None if steps is None else await waits.drive(steps)

    async def flush(self) -> None:
        """Wait until the broker has taken over everything published so far; ConnectionLost when it went meanwhile."""
        await self._waits.drive(self._waits.flushed())

    async def drain(self) -> None:
        """Wait until the broker has taken over everything published, and end the subscriptions.

        They take nothing new; iterations go on until what had come is taken, and end. Raises what ``flush`` raises.
        """
        await self._waits.drive(self._waits.drained())

    async def state_changed(self) -> BusState:
        """Wait until ``state`` is another one, and return it; CLOSED is the last, and returned at once."""
        return await self._waits.drive(self._waits.standing.other_than(self._waits.state))

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
    ) -> Subscription:
        """Subscribe to a pattern: an async context manager, in force at the broker once entered.

        ``group``: share the messages with the other members of that name and pattern. ``capacity``,
        ``capacity_bytes``: what may wait here before publishers wait, or before ``overflow`` drops instead:
        "drop_oldest", "drop_newest", "latest" (all but the newest of each topic), or "disconnect", which ends the
        subscription. ``stall``: a subscription that makes publishers wait and takes nothing for so many seconds is
        ended (None: as the broker has it; math.inf: never). Taking from one that was ended raises
        SubscriptionStalled, after what had come. ``fds``: where the link cannot carry descriptors, "reject" such
        messages (they count as lost) or "strip" them. Entering raises InvalidTopic, LimitExceeded and ConnectionLost.
        """
        return Subscription(self._waits, pattern, group, fds, capacity, capacity_bytes, overflow, stall)

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
        return await self._waits.drive(self._waits.request(topic, payload, fds, headers), timeout)

    async def wait_for(
        self, pattern: str, *, subscribers: int | None = None, servers: int | None = None, timeout: float | None = None
    ) -> None:
        """Wait until so many subscriptions and servers are there for a topic or pattern; by default one subscription.

        There are those whose pattern some topic of this one matches, this bus's own included; each member of a group
        counts. TimeoutError when they are not there within ``timeout`` seconds; InvalidTopic, LimitExceeded and
        ConnectionLost.
        """
        await self._waits.drive(waited_for(self._waits, pattern, subscribers, servers), timeout)

    async def serve(
        self, pattern: str, handler: Handler, *, concurrency: int = 64, task_status: TaskStatus | None = None
    ) -> None:
        """Answer requests on a pattern until cancelled.

        ``handler(message)``, plain or async, returns the reply's payload or a ``Reply``; what it raises becomes the
        requester's RemoteError. ``concurrency`` handlers run at once at most; the request's fds close when its
        handler is done. ``task_status`` is told when this is in force: an Event, which is set, or an object with
        ``started()``, as Trio's ``nursery.start`` gives. Raises InvalidTopic, PermissionDenied, LimitExceeded and
        ConnectionLost.
        """
        waits = self._waits
        service = new_service(pattern, concurrency)
        await waits.drive(waits.put_in_force(service))
        try:
            tell_started(task_status)
            await waits.work(service, handler)
            check_served(service)
            waits.check()
        finally:
            waits.leave(service)
