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

from ..errors import ConnectError, ConnectionLost, SockbusError, VersionMismatch
from ..protocol.mailbox import Mailbox, Service
from ..protocol.pending import Pending
from ..protocol.session import Session
from ..state import BusState
from ..transport.channel import Channel
from .connecting import Connecting, answered
from .need import Expired, Steps
from .reporting import also_lost, report
from .sending import Sending
from .standing import Standing

__all__ = ["Keeping"]

Box = Mailbox | Service

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
        self.standing = Standing()
        #: messages published without a receipt that may be lost with a connection, or with the bus
        self.in_doubt = 0
        #: those that may be lost with the end of the bus
        self.lost_last = 0
        #: what is to be said as soon as nothing is under way (``report_all``)
        self.unreported: list[str] = []
        #: what is to be in force, in the order in which it was asked for, and whether it was before
        self.boxes: dict[Box, bool] = {}
        self._reconnect = connecting.reconnect
        self._pause = 0.0
        self._connected_at = 0.0
        # What the last attempt met that is no broker of this bus.
        self._obstacle: SockbusError | None = None
        # Whether that was said, once while there is no connection.
        self._complained = False
        self._hook(channel)

    def _hook(self, channel: Channel) -> None:
        session = channel.session
        session.room = self._on_room
        session.ending = self._on_ending
        session.request_ended = self._on_request_ended

    @abstractmethod
    def take_up(self) -> None:
        """``channel`` is another one: read and write it. (That of before is closed.)"""

    @property
    def keeps_for_another(self) -> bool:
        """Whether what no connection has begun to write waits for the next one."""
        return self._reconnect == "wait"

    # The state

    @property
    def state(self) -> BusState:
        """What this bus is at."""
        return self.standing.now.state

    def opened(self) -> None:
        """The first connection is there, unless what brought that word has brought the end, too."""
        if self.session.error is None:
            self._connected_at = perf_counter()
            self.standing.enter(BusState.CONNECTED)

    def check(self) -> None:
        if self.error is not None:
            self.session.heard = True
            raise type(self.error)(*self.error.args) from self.error

    def check_connected(self) -> None:
        self.check()
        error = self.session.error
        if error is not None and not self.keeps_for_another:
            raise ConnectionLost(f"{self.why_away}, or connect with reconnect='wait'") from error

    @property
    def why_away(self) -> str:
        error = self.session.error
        if error is None:
            return ""
        return (
            f"there is no connection to {self.connecting.address} at the moment ({self._obstacle or error}); wait for "
            f"bus.state_changed()"
        )

    def connected(self) -> Steps[Session]:
        """The session; where there is no connection, wait for it, or raise that there is none."""
        while self.session.error is not None:
            self.check_connected()
            yield self.standing.changed
        return self.session

    # The end of a connection

    def _on_ending(self) -> None:
        """The session has an error; the program goes on without it, or ends with it."""
        session = self.session
        error = session.error
        assert error is not None
        self.detour = True
        in_doubt = self.backlog.salvage(session) if session.welcome.done else 0
        goes_on = self.error is None and self._reconnect is not None and session.welcome.done
        if goes_on and isinstance(error, ConnectionLost):
            self._wait_for_another(error, in_doubt)
        else:
            self._end(error, in_doubt)
            session.error = self.error

    def _wait_for_another(self, error: SockbusError, in_doubt: int) -> None:
        if not self.keeps_for_another:
            # Nothing waits for another connection: who published it is told, or finds it counted.
            in_doubt += self.backlog.unanswered
            self.backlog.fail(error)
        self.in_doubt += in_doubt
        self._obstacle, self._complained = None, False
        self._cut(1)
        if perf_counter() - self._connected_at > SETTLED_SECONDS:
            self._pause = 0.0
        self.unreported.append(f"the connection to {self.connecting.address} was lost{also_lost(in_doubt)}: {error}")
        self.standing.enter(BusState.WAITING)

    def end(self, error: SockbusError) -> None:
        """This side makes no more use of the bus: all that wait get this error."""
        if self.error is None:
            self.error = error
        if self.session.error is None:
            self.session.fail(error)
        else:
            self._end(error, 0)
            self._on_room()

    def _end(self, error: SockbusError, in_doubt: int) -> None:
        """There will be no other connection, and what still waits for one is lost."""
        in_doubt += self.backlog.unanswered
        self.in_doubt += in_doubt
        if self.error is None:
            # It was not this side that ended it, which may not even know yet.
            self.lost_last = in_doubt
            if self.session.welcome.done and (in_doubt or self._reconnect is not None):
                self.unreported.append(f"the bus at {self.connecting.address} has ended{also_lost(in_doubt)}: {error}")
            if in_doubt:
                error = type(error)(f"the bus has ended{also_lost(in_doubt)}: {error}")
            self.error = error
        self.session.heard = self.backlog.fail(self.error)
        self.standing.enter(BusState.CLOSED)

    def report_all(self) -> None:
        """Say what is to be said: called where a program's own code, which may use this bus, gets in nobody's way."""
        while self.unreported:
            report(self.unreported.pop(0))

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
        self.standing.enter(BusState.CONNECTING)
        try:
            channel = yield from self.connecting.dialled()
            yield from self._resumed(channel)
            # What brought the last answer may have brought the end, too.
            channel.session.check()
            self.check()
        except (Expired, SockbusError) as error:
            if channel is not None:
                self._give_up(channel)
            self._failed(error)
            return
        except BaseException:
            if channel is not None:
                self._give_up(channel)
            raise
        self._go_on_with(channel)

    def _failed(self, error: Expired | SockbusError) -> None:
        """An attempt was no luck. Only what would be so for ever ends the bus; the rest may be over in a moment."""
        if isinstance(error, VersionMismatch):
            self._end(error, 0)
            self._on_room()
        if self.error is not None:
            return
        if isinstance(error, (Expired, ConnectError)):
            # No broker is there, which everybody knows by now.
            self._obstacle = None
        else:
            if not self._complained:
                self._complained = True
                self.unreported.append(f"no connection to {self.connecting.address} is made for now: {error}")
            self._obstacle = error
        self._cut(0)
        self.standing.enter(BusState.WAITING)

    def _cut(self, interruptions: int) -> None:
        """A connection has ended, and with it what was in force by it."""
        for box, was_in_force in self.boxes.items():
            box.cut()
            if isinstance(box, Mailbox):
                if was_in_force or box.ready:
                    box.interrupted += interruptions
                else:
                    # It is still being entered, and nothing has come: there is nothing that its program could miss.
                    box.is_cut = False

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
        yield from answered(channel, session.welcome)
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
            yield from answered(channel, pending)

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
        self.standing.enter(BusState.CONNECTED)
        self._room.open_all()
        self._slots.open_all()
        self.unreported.append(f"connected again to {self.connecting.road}")


def _boxes_of(session: Session) -> list[Box]:
    return [*session.deliveries.mailboxes.values(), *session.calls.services.values()]
