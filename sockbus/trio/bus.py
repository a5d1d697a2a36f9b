"""What a Trio program holds: ``connect`` and ``Bus``."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import Literal, final, overload

import trio

from ..address import Address, default_address
from ..errors import ConnectError, LimitExceeded, RequestTimeout, SockbusError
from ..fd import HasFileno
from ..message import Message, Peer, Receipt
from ..payload import Headers
from ..protocol.handshake import check_name
from ..protocol.mailbox import check_capacity
from ..protocol.sender import Outgoing
from ..transport.base import Transport
from ..transport.channel import Channel
from ..transport.dial import Dialing, Pause, Writable, dial
from .subscription import Subscription
from .waits import YIELD_BYTES, YIELD_SECONDS, Waits, is_cancelled
from .workers import Handler, Workers

__all__ = ["Bus", "connect"]

# Seconds that connecting, handshake included, may take, and that leaving waits for what was published.
CONNECT_SECONDS = 10.0
LEAVE_SECONDS = 5.0


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
        address = self._address
        if address is None:
            address = default_address()
        elif isinstance(address, str):
            address = Address.parse(address)
        deadline = trio.current_time() + CONNECT_SECONDS
        transport: Transport | None = None
        with trio.CancelScope(deadline=deadline):
            transport, road = await _drive(dial(address))
        if transport is not None:
            self._bus = Bus(Channel(transport, self._name), str(road))
            if await self._bus._open(deadline):
                return self._bus
        raise ConnectError(f"the broker at {address} did not answer within {CONNECT_SECONDS:g} s; is it stopped?")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._bus._leave(error)


async def _drive(dialing: Dialing) -> tuple[Transport, Address]:
    """Wait for what the dialler asks for until it is done."""
    try:
        need = next(dialing)
        while True:
            try:
                found: object = None
                if isinstance(need, Writable):
                    await trio.lowlevel.wait_writable(need.sock)
                elif isinstance(need, Pause):
                    await trio.sleep(need.seconds)
                else:
                    found = await trio.socket.getaddrinfo(need.host, need.port, type=trio.socket.SOCK_STREAM)
            except OSError as error:
                need = dialing.throw(error)
            else:
                need = dialing.send(found)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what StopIteration holds has no type
    finally:
        dialing.close()


@final
class Bus:
    """A connection to a broker, as ``connect`` gives it. Any number of tasks may use it at once.

    When the broker goes, calls and iterations raise ConnectionLost.
    """

    #: the road taken, e.g. "seqpacket:/run/user/1000/sockbus/seqpacket"
    address: str
    #: "seqpacket", "stream" or "tcp"
    transport: str

    def __init__(self, channel: Channel, address: str) -> None:
        self.address = address
        self.transport = channel.transport.name
        self._session = channel.session
        self._waits = Waits(channel)
        self._flushing = trio.Lock()

    @property
    def peer(self) -> Peer:
        """Who the broker takes this program for."""
        return self._session.peer

    def __repr__(self) -> str:
        return f"<Bus {self.address}>"

    async def _open(self, deadline: float) -> bool:
        await self._waits.open()
        is_open = False
        try:
            is_open = await self._waits.welcome(deadline)
        except SockbusError as error:
            raise ConnectError(f"the broker at {self.address} refused the connection: {error}") from error
        finally:
            if not is_open:
                await self._waits.close()
        return is_open

    async def _leave(self, error: BaseException | None) -> None:
        session = self._session
        was_flushed = session.is_flushed
        try:
            if session.error is None and not is_cancelled(error):
                if not await self._waits.leave(LEAVE_SECONDS, self.flush):
                    raise LimitExceeded(
                        f"the broker has not taken over everything published within {LEAVE_SECONDS:g} s of leaving; "
                        f"does a subscriber not read?"
                    )
            elif session.unheard and error is None:
                session.check()
        except SockbusError as failure:
            if error is not None:
                error.add_note(f"besides, leaving the bus failed: {failure}")
            elif session.error is None or not was_flushed:
                raise
        finally:
            self._waits.goodbye()
            await self._waits.close()

    # Publishing and subscribing

    @trio.lowlevel.enable_ki_protection
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
        session, waits = self._session, self._waits
        if session.error is not None:
            session.check()
        if fds or headers or receipt:
            outgoing = session.sender.publish(topic, payload, fds, headers, receipt=receipt)
            return await self._publish_message(outgoing, receipt=receipt)
        frame = session.sender.plain(topic, payload)
        if not isinstance(frame, bytes):
            return await self._publish_message(frame, receipt=False)
        window = session.sender.publishes
        while window.sent_bytes >= window.granted_bytes:
            await waits.room()
        window.sent_bytes += len(frame)
        outbox = session.outbox
        outbox.put_small(frame)
        if outbox.queued_bytes >= YIELD_BYTES:
            waits.flush()
            await trio.lowlevel.checkpoint()
            waits.yielded = perf_counter()
        else:
            if waits.writer_sleeps:
                waits.flush_soon()
            if perf_counter() - waits.yielded > YIELD_SECONDS:
                await trio.lowlevel.checkpoint()
                waits.yielded = perf_counter()
        return None

    async def _publish_message(self, outgoing: Outgoing, *, receipt: bool) -> Receipt | None:
        await self._waits.send(outgoing)
        if receipt:
            answer: Receipt = await self._waits.result(self._session.await_receipt(outgoing))
            return answer
        await self._waits.let_others_run()
        return None

    async def flush(self) -> None:
        """Wait until the broker has taken over everything published so far; ConnectionLost."""
        async with self._flushing:
            # An earlier one may have been cancelled before its answer came, and one at a time may be asked for.
            if self._session.flushing is not None:
                await self._waits.result(self._session.flushing)
            pending = self._session.flush()
            self._waits.flush()
            await self._waits.result(pending)

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
        check_capacity(group, fds, capacity, capacity_bytes)
        return Subscription(self._waits, pattern, group, capacity, capacity_bytes, strip=fds == "strip")

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
        session, waits = self._session, self._waits
        session.check()
        outgoing = session.sender.request(topic, payload, fds, headers)
        with trio.CancelScope(deadline=trio.current_time() + (float("inf") if timeout is None else timeout)):
            await waits.send(outgoing)
            # Nothing awaits between sending and this, so that a cancelled request is always taken back.
            pending = session.await_reply(outgoing, topic)
            try:
                reply: Message = await waits.result(pending)
                return reply
            finally:
                session.end_request(outgoing)
                waits.flush_urgent()
        raise RequestTimeout(topic, timeout or 0.0)

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
        session, waits = self._session, self._waits
        service, pending = session.serve(pattern, concurrency)
        try:
            waits.flush()
            await waits.result(pending)
            task_status.started()
            await Workers(waits, service, handler).run()
            session.check()
        finally:
            session.leave(service)
            waits.flush_urgent()
