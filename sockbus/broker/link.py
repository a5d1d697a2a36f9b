"""The broker's hold on one peer: its socket, its outbox, its windows, and its end.

A link reads whenever its socket is readable, a bounded turn at a time, and hands what came to its ``Pump``. Writing
is a direct non-blocking send at the end of a turn; a writer task exists only while the socket is full. Whatever
happens here ends this link alone: a violation is answered with an ERROR frame where one can still be sent, and logged
in one line.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

import trio

from ..errors import ProtocolError, SockbusError
from ..fd import SharedFds, close_fds
from ..message import Peer
from ..protocol.frame import Kind, control
from ..protocol.handshake import HELLO_BYTES
from ..protocol.inbox import Inbox
from ..protocol.outbox import Lane
from ..transport.base import Transport
from .call import Call, Reply, Server
from .herald import Will
from .holdings import Holdings
from .hub import Hub
from .intake import Intake
from .outlet import Outlet, Starved
from .parcel import Delivery, Parcel
from .presence import Presence
from .pump import Pump
from .subscription import Subscription
from .watches import Watch
from .windows import Windows

__all__ = ["Link"]

# Reads in one turn before others run; with the transports' sizes about half a megabyte.
TURN_READS = 4


class Link:
    """One connected peer. ``run`` lives as long as the connection."""

    def __init__(self, hub: Hub, transport: Transport, nursery: trio.Nursery) -> None:
        self.hub = hub
        self.transport = transport
        self.number = hub.new_peer_number()
        self.presence = Presence.of(self, self.number, transport)
        host = "" if self.peer.uid is not None else transport.remote_host()
        self.is_local = transport.carries_fds
        self.carries_fds = False
        self.inbox = Inbox(
            carries_fds=transport.carries_fds, max_fds=0, max_frame=HELLO_BYTES, record=transport.records
        )
        self.outlet = Outlet(hub, transport, nursery, self.end)
        self.outlet.drained = self._drained
        self.account = hub.admission.admit(self, self.peer.uid, host)
        limits = hub.limits
        closed = hub.admission.is_overdrawn(self.account)
        self.publish_intake = Intake("publish", limits.window_bytes, limits.link_fds, closed=closed)
        self.requests_intake = Intake("request", limits.call_window_bytes, limits.link_fds)
        self.replies_intake = Intake("reply", limits.call_window_bytes, limits.link_fds)
        self.windows = Windows(self, (self.publish_intake, self.requests_intake, self.replies_intake))
        self.subscriptions: dict[int, Subscription] = {}
        self.servers: dict[int, Server] = {}
        self.watches: dict[int, Watch] = {}
        #: requests of this peer, and calls handed to its servers, that have not ended
        self.requests: dict[int, Call] = {}
        self.calls: dict[int, Call] = {}
        self.next_call_number = 2
        self.holdings = Holdings(hub)
        #: replies for this peer that wait for room
        self.late_replies: collections.deque[Reply] = collections.deque()
        self.progress_at = hub.now()
        #: what to publish when the peer goes without goodbye
        self.will: Will | None = None
        #: called when the handshake is done, or the link gone before it was
        self.opened: Callable[[], None] = lambda: None
        self.gone = False
        self.pump = Pump(self)
        self._charged_bytes = 0
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()
        #: why it is sent away, and whether the other side was at its end before
        self.end_reason: SockbusError | None = None
        self.at_end = False

    def __repr__(self) -> str:
        name = f" {self.peer.name!r}" if self.peer.name else ""
        return f"peer {self.number}{name} ({self.peer.transport}, {self.account.key})"

    @property
    def peer(self) -> Peer:
        """Who this is, as others are told."""
        return self.presence.peer

    # Life

    async def run(self) -> None:
        """Read until the peer has gone or was sent away, then leave nothing behind."""
        try:
            with self._scope:
                with self._reading:
                    await self._read()
                if self._reading.cancelled_caught:
                    await trio.sleep_forever()
        except SockbusError as error:
            self.end_reason = error
        except ConnectionResetError:
            # A TCP peer that died; nothing of it is left to read.
            self.end_reason = None
        except Exception as error:  # noqa: BLE001  # a fault of the broker's own must cost this peer alone, and be seen
            self.end_reason = self.hub.fault(self, error)
        except trio.Cancelled:
            self.hub.is_stopping = True
            raise
        finally:
            self._withdraw()
            if self.end_reason is not None:
                await self._send_away(self.end_reason)
            self._close()

    def end(self, error: SockbusError) -> None:
        """End this link from elsewhere, with an ERROR to its peer."""
        self.end_reason = error
        self._scope.cancel()

    def unsubscribe(self) -> None:
        """Nothing more is delivered to it."""
        subscriptions = [subscription for subscription in self.subscriptions.values() if not subscription.ended]
        self.subscriptions.clear()
        self.hub.unsubscribe(subscriptions)

    def leave_off(self, goodbye: bytes) -> None:
        """The broker stops: read no more, and let ``goodbye`` be the last that is sent."""
        self.windows.tell_taken()
        self.outlet.outbox.put_last(goodbye)
        self.hub.touched[self] = None
        self._reading.cancel()

    async def _read(self) -> None:
        receive = self.transport.receive
        counters = self.hub.counters
        seconds = self.hub.limits.handshake_seconds
        opening = trio.CancelScope(deadline=trio.current_time() + seconds)
        with opening:
            while not self.pump.is_open:
                await trio.lowlevel.wait_readable(self.transport.sock)
                if not await self._turn(receive()):
                    return
        if opening.cancelled_caught:
            raise ProtocolError(f"no HELLO came within handshake_seconds = {seconds}; send it first")
        while True:
            if self.hub.full and self.publish_intake.received_bytes:
                await self.hub.ease()
            await trio.lowlevel.wait_readable(self.transport.sock)
            # Woken before the broker left off, and run after: what comes now is about subscriptions that have ended.
            await trio.lowlevel.checkpoint_if_cancelled()
            counters.turns += 1
            for _ in range(TURN_READS):
                came = receive()
                counters.receives += 1
                if came is None:
                    break
                if not await self._turn(came):
                    return
                if len(came[0]) < self.transport.full_receive and not came[1]:
                    # One with descriptors stops short behind them.
                    break

    async def _turn(self, came: tuple[bytes, tuple[int, ...]] | None) -> bool:
        """Work through what one receive brought; whether more can come."""
        if came is None:
            return True
        data, fds = came
        if not data:
            close_fds(fds)
            if self.transport.end_is_record():
                raise ProtocolError("an empty record came; a record holds at least one frame")
            self.at_end = True
            self.inbox.end()
            return False
        self.hub.counters.bytes_in += len(data)
        runs = self.inbox.receive(data, fds)
        more = True
        while more:
            try:
                more = self.pump.turn(runs)
            finally:
                # Also where nothing is sent back: what came is held, and its window may be due.
                self.hub.touched[self] = None
                self.hub.settle()
            if more:
                await trio.lowlevel.checkpoint()
            if self.outlet.is_behind:
                await self.outlet.caught_up()
                await trio.lowlevel.checkpoint_if_cancelled()
        if self.inbox.unfinished_bytes:
            self.progress_at = self.hub.now()
        return not self.pump.is_closed

    async def _send_away(self, error: SockbusError) -> None:
        """Say why, as far as the peer listens, and let it read that before the socket closes."""
        self.hub.counters.refused += 1
        self.hub.log.say(self.account.key, "%r was sent away: %s", self, error)
        await self.outlet.last_word(error)

    def _withdraw(self) -> None:
        """Take everything of this peer out of the broker; what it published and others still wait for stays."""
        self.gone = True
        self.opened()
        self.pump.arrivals.close()
        # Before its own subscriptions drop what waits for them, and give it back to whom it is charged.
        self.publish_intake.write_off(self.pump.held_bytes)
        self.account.orphaned_bytes += self.publish_intake.held_bytes + self.pump.overhead_bytes
        hub = self.hub
        was_open = hub.links.pop(self.number, None) is not None
        hub.mortality.forget(self)
        hub.watches.end(*self.watches.values())
        hub.watched.pop(self, None)
        hub.untold.pop(self, None)
        self.unsubscribe()
        hub.switchboard.link_gone(self)
        self.inbox.close()
        for intake in (self.requests_intake, self.replies_intake):
            intake.write_off(0)
        if was_open and not hub.is_stopping:
            hub.herald.left(self)
        self.presence.end()
        hub.settle()

    def _close(self) -> None:
        self.outlet.close()
        self._account()
        self.hub.admission.leave(self.account, self)
        trio.lowlevel.notify_closing(self.transport.sock)
        self.transport.close()

    # What its peer sent

    def open(self) -> None:
        """The handshake is done."""
        self.hub.links[self.number] = self
        self.hub.mortality.note(self)
        self.hub.herald.joined(self)
        self.pump.open()
        self.opened()

    def parcel_done(self, parcel: Parcel) -> None:
        """A parcel of this peer's has left every sink."""
        self.publish_intake.take(parcel.cost, parcel.nfds)
        if not parcel.answered:
            self.publish_intake.taken_messages += parcel.count
        overhead = self.pump.parcel_done(parcel)
        if self.gone:
            self.hub.orphan_done(self.account, parcel.cost + overhead)
            self._account()
        else:
            self.hub.touched[self] = None
        self.presence.let_go()

    # What it is sent

    def put_control(self, frame: bytes) -> None:
        """A frame of the broker's own, which passes messages."""
        if not self.gone:
            self.outlet.put(Lane.CONTROL, frame)
            self.hub.touched[self] = None

    def put_last(self, frame: bytes) -> None:
        """A frame of the broker's own that must not pass what was queued before it."""
        if not self.gone:
            self.outlet.outbox.put_last(frame)
            self.hub.touched[self] = None

    def put_error(self, error: SockbusError, correlation: int) -> None:
        """The end of one thing that this peer started."""
        self.put_control(control(Kind.ERROR, {"code": error.code, "text": str(error)}, correlation=correlation))

    def end_subscription(self, subscription: Subscription, error: SockbusError) -> None:
        """One subscription is over, behind what was delivered; its number lasts until the peer has left it."""
        self.hub.end_subscription(self, subscription, error)

    def put_front(self, front: bytes, lost: int) -> None:
        """A front without messages, for what was lost."""
        self.outlet.put(Lane.MESSAGES, front)
        self.hub.counters.lost += lost
        self.hub.touched[self] = None

    def deliver(
        self, front: bytes, delivery: Delivery, frames: Sequence[bytes], fds: SharedFds | None, count: int
    ) -> None:
        """Publishes behind their front."""
        self.hub.counters.messages_out += count
        self.put_message(Lane.MESSAGES, front, delivery.presence, frames, fds)

    def put_message(
        self, lane: Lane, front: bytes, origin: Presence, frames: Sequence[bytes], fds: SharedFds | None
    ) -> None:
        """A message of ``origin`` behind its front; takes a hold of its own on ``fds``."""
        if self.gone:
            return
        origin.introduce_to(self)
        put = self.outlet.put
        put(lane, front)
        for frame in frames:
            put(lane, frame, fds)
            fds = None
        self.hub.touched[self] = None

    def has_room(self, fds: int) -> bool:
        """Whether a publish may be queued."""
        return self.outlet.has_room(fds)

    def starve(self, waiting: Starved) -> None:
        """Let it progress when there is room again."""
        self.outlet.starve(waiting)

    def wait(self, subscription: Subscription) -> None:
        """Messages wait for its credit, or for room here."""
        self.hub.stalls.watch(self, subscription)

    def _drained(self) -> None:
        if self.late_replies:
            self.hub.switchboard.feed_requester(self)

    def settle(self) -> None:
        """The end of a turn: tell windows that are due, send what is queued, account for what is left."""
        if self.gone:
            return
        if self.publish_intake.moved or self.requests_intake.moved or self.replies_intake.moved:
            self.windows.settle()
        self.outlet.flush()
        self._account()

    def _account(self) -> None:
        charged = self.outlet.outbox.queued_bytes + self.publish_intake.held_bytes + self.requests_intake.held_bytes
        # Of a message in pieces only what has come.
        charged += self.replies_intake.held_bytes - self.pump.arrivals.missing_bytes + self.pump.overhead_bytes
        if self.will is not None and not self.gone:
            charged += len(self.will.frame)
        self.hub.queued_bytes += charged - self._charged_bytes
        self._charged_bytes = charged
