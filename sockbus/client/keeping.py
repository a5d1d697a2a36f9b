"""Keeping a bus connected: what happens when its connection is lost, and how it gets another one.

What outlives a connection is here and in what is registered: subscriptions and servers (``boxes``), publishes that were
not begun to be written, the state. ``reconnect`` is one attempt: a road to the broker, a handshake, all boxes in force
again; only then does the rest of the program see the new session. A runtime makes attempts, ``pause`` seconds apart,
until ``session`` has no error or ``error`` says why there will be no other.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from time import perf_counter

from ..errors import ConnectError, ConnectionLost, PermissionDenied, ProtocolError, SockbusError
from ..protocol.mailbox import Mailbox, Service
from ..protocol.pending import Pending
from ..protocol.session import Session
from ..state import BusState
from ..transport.base import Blocked
from ..transport.channel import Channel
from ..transport.dial import Pause, Readable, Writable
from .connecting import Connecting
from .need import Expired, Gate, Steps
from .reporting import report
from .sending import Sending

__all__ = ["LATER_SECONDS", "Keeping"]

Box = Mailbox | Service

# Seconds until a send is tried again that met a limit of the kernel's, which readiness does not show.
LATER_SECONDS = 0.01
# The second attempt comes so many seconds after the first, which comes at once; each pause is twice the one before.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
# A connection that lasted for less is none that the pauses begin anew after.
SETTLED_SECONDS = 1.0


class Keeping(Sending):
    """One bus over all its connections."""

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        super().__init__(channel, connecting.buffer_bytes)
        self.connecting = connecting
        #: why this bus is of no use any more
        self.error: SockbusError | None = None
        self.state = BusState.CONNECTING
        #: how often it has changed
        self.changes = 0
        #: messages published without a receipt that were written to a connection which was lost, and may be lost too
        self.in_doubt = 0
        #: what is to be in force, in the order in which it was asked for
        self.boxes: dict[Box, None] = {}
        self._reconnect = connecting.reconnect
        self._changed = Gate()
        self._pause = 0.0
        self._connected_at = 0.0
        self._hook(channel)

    def _hook(self, channel: Channel) -> None:
        session = channel.session
        session.room = self._on_room
        session.ending = self._on_ending
        session.request_ended = self._on_request_ended

    @abstractmethod
    def take_up(self) -> None:
        """``channel`` is another one: read and write it. (That of before is closed.)"""

    # The state

    def _enter(self, state: BusState) -> None:
        if state is not self.state:
            self.state = state
            self.changes += 1
            self._changed.open_all()

    def opened(self) -> None:
        """The first connection is there, unless what brought that word has brought the end, too."""
        if self.session.error is None:
            self._connected_at = perf_counter()
            self._enter(BusState.CONNECTED)

    def state_changed(self, seen: int | None = None) -> Steps[BusState]:
        """Wait until the state is another one than now, and give it; at once where it is the last.

        ``seen``: what ``changes`` was when the caller last looked; at once where it is more by now.
        """
        if self.state is not BusState.CLOSED and (seen is None or seen == self.changes):
            yield self._changed
        return self.state

    def check(self) -> None:
        if self.error is not None:
            self.session.unheard = False
            raise type(self.error)(*self.error.args) from self.error

    def check_connected(self) -> None:
        self.check()
        error = self.session.error
        if error is not None and self._reconnect == "fail":
            raise ConnectionLost(f"{self.why_away}, or connect with reconnect='wait'") from error

    @property
    def why_away(self) -> str:
        error = self.session.error
        if error is None:
            return ""
        return (
            f"there is no connection to {self.connecting.address} at the moment ({error}); wait for bus.state_changed()"
        )

    def connected(self) -> Steps[Session]:
        """The session; where there is no connection, wait for it, or raise that there is none."""
        while self.session.error is not None:
            self.check_connected()
            yield self._changed
        return self.session

    # The end of a connection

    def _on_ending(self) -> None:
        """The session has an error; the program goes on without it, or ends with it."""
        session = self.session
        error = session.error
        self.detour = True
        if (
            self.error is None
            and self._reconnect is not None
            and session.welcome.done
            and isinstance(error, ConnectionLost)
        ):
            in_doubt = self.backlog.salvage(session)
            self.in_doubt += in_doubt
            for box in self.boxes:
                box.cut()
                if isinstance(box, Mailbox):
                    box.interrupted += 1
            if perf_counter() - self._connected_at > SETTLED_SECONDS:
                self._pause = 0.0
            also = f", and with it perhaps {in_doubt} messages" if in_doubt else ""
            self._enter(BusState.WAITING)
            # Last: what has it may be anybody's code.
            report(f"the connection to {self.connecting.address} was lost{also}: {error}")
            return
        if self.error is None:
            self.error = error
        self._close_state()

    def end(self, error: SockbusError) -> None:
        """This bus is of no use any more: all that wait get this error."""
        if self.error is None:
            self.error = error
        if self.session.error is None:
            self.session.fail(error)
            return
        self._close_state()
        self._on_room()

    def _close_state(self) -> None:
        if self.error is not None:
            self.backlog.fail(self.error)
        self._enter(BusState.CLOSED)

    def _on_room(self) -> None:
        super()._on_room()
        if self.error is not None:
            self._slots.open_all()
            for box in self.boxes:
                box.wake()

    # Another connection

    def pause(self) -> float:
        """Seconds until the next attempt is due: none before the first."""
        pause = self._pause
        # Between three quarters of it and all, lest those who lost the same broker come back as one.
        jitter = 0.75 + os.urandom(1)[0] / 1024
        self._pause = min(2 * pause, LONGEST_PAUSE) if pause else FIRST_PAUSE
        return pause * jitter

    def reconnect(self) -> Steps[None]:
        """One attempt; ``Expired`` ends it. Afterwards there is a session without an error, or was no luck."""
        channel: Channel | None = None
        self._enter(BusState.CONNECTING)
        try:
            channel = yield from self.connecting.dialled()
            yield from self._resumed(channel)
            # What brought the last answer may have brought the end, too.
            channel.session.check()
            self.check()
        except (Expired, SockbusError) as error:
            if channel is not None:
                self._give_up(channel)
            if isinstance(error, (ProtocolError, PermissionDenied)):
                self.end(error)
            else:
                for box in self.boxes:
                    box.cut()
                self._enter(BusState.WAITING)
            return
        except BaseException:
            if channel is not None:
                self._give_up(channel)
            raise
        self._go_on_with(channel)

    def _give_up(self, channel: Channel) -> None:
        if channel.session.welcome.succeeded:
            # It is this side that goes: its will is not to be published.
            channel.session.goodbye()
            channel.flush()
        channel.close()
        for box in _boxes_of(channel.session):
            if box not in self.boxes:
                # It was left meanwhile, and nobody takes what has come since.
                box.close()

    def _resumed(self, channel: Channel) -> Steps[None]:
        """Shake hands, and put in force all that is to be."""
        session = channel.session
        channel.flush()
        yield from _answered(channel, session.welcome)
        asked: list[Pending] = []
        if self.connecting.will is not None:
            asked.append(session.sender.will(self.connecting.will))
        for box in self.boxes:
            if box.over or box.error is not None:
                continue
            try:
                asked.append(session.subscribe(box) if isinstance(box, Mailbox) else session.serve(box))
            except SockbusError as error:
                session.check()
                # This broker allows fewer of them.
                box.error = error
                box.wake()
        channel.flush()
        for pending in asked:
            yield from _answered(channel, pending)

    def _go_on_with(self, channel: Channel) -> None:
        self.channel, self.session = channel, channel.session
        self._connected_at = perf_counter()
        self._hook(channel)
        session = self.session
        for box in _boxes_of(session):
            if box not in self.boxes:
                # It was left meanwhile.
                session.leave(box)
        self.backlog.move_to(session)
        self.detour = bool(self.backlog)
        self.take_up()
        self._feed()
        self._enter(BusState.CONNECTED)
        self._room.open_all()
        self._slots.open_all()
        report(f"connected again to {self.connecting.road}")


def _boxes_of(session: Session) -> list[Box]:
    return [*session.deliveries.mailboxes.values(), *session.calls.services.values()]


def _answered(channel: Channel, pending: Pending) -> Steps[None]:
    """Write and read until somebody is answered; what the answer raises."""
    while not pending.done:
        if channel.blocked is Blocked.WRITABLE:
            yield Writable(channel.sock)
            channel.unblock()
        elif channel.blocked is not None:
            yield Pause(LATER_SECONDS)
            channel.unblock()
        else:
            yield Readable(channel.sock)
            channel.read()
    try:
        pending.result()
    except ConnectionLost as error:
        raise ConnectError(str(error)) from error
