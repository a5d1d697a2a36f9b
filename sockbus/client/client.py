"""What the calls of one bus do between their waits.

A ``Client`` has the session and its channel, and the gates at which calls wait for room. Each runtime derives its own
from it and says how to wait for the socket. What it is made of: ``sending``, ``keeping``, and the verbs here.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

from ..errors import ConnectionLost, LimitExceeded, RequestTimeout, SockbusError
from ..fd import HasFileno
from ..message import Message
from ..payload import Headers
from ..protocol.mailbox import Mailbox, Service, no_wake
from ..protocol.pending import Pending
from ..transport.channel import Channel
from ..transport.inheritance import go_on, let_go, look_around
from .connecting import LATER_SECONDS, Connecting
from .keeping import Keeping
from .need import Expired, Gate, Steps
from .reporting import also_lost

__all__ = ["LATER_SECONDS", "LEAVE_SECONDS", "TICK_SECONDS", "Client"]

# Seconds that leaving waits for what was published.
LEAVE_SECONDS = 5.0
# Credit must be back a second after consumption: two ticks.
TICK_SECONDS = 0.5


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client(Keeping):
    """The verbs of one bus."""

    #: what a child does that has inherited it by fork
    instead = "connect again in this process"

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        super().__init__(channel, connecting)
        self._pid = os.getpid()
        self._flushers = Gate()
        self._is_flushing = False
        _clients.add(self)

    def flushed(self) -> Steps[None]:
        """Wait until the broker has taken over everything published so far; ConnectionLost when it goes meanwhile."""
        while self._is_flushing:
            # In a forked child it may be flushing for ever, by a thread that only the parent has.
            self.check()
            yield self._flushers
        self._is_flushing = True
        try:
            session = yield from self.connected()
            while self.backlog:
                yield self._room
                session = yield from self.connected()
            # An earlier one may have been given up before its answer came, and one at a time may be asked for.
            if session.flushing is not None:
                yield from self.result(session.flushing)
            pending = session.flush()
            count = session.sender.publishes.sent_messages
            self.flush()
            yield from self.result(pending)
            session.sender.publishes.taken_messages = max(session.sender.publishes.taken_messages, count)
        finally:
            self._is_flushing = False
            self._flushers.open()

    # Asking

    def request(
        self,
        topic: str,
        payload: object,
        fds: Sequence[int | HasFileno],
        headers: Headers | None,
    ) -> Steps[Message]:
        """Ask, and wait for the reply."""
        # Steps within steps are for where something has to be waited for: `python -m benchmarks latency`.
        try:
            session = self.session
            if session.error is not None:
                session = yield from self.connected()
            outgoing = session.sender.request(topic, payload, fds, headers)
            if session.send(outgoing):
                self.flush()
            else:
                session = yield from self.send(outgoing)
            # Nothing is waited for between sending and this, so that a request that is given up is always taken back.
            pending = session.await_reply(outgoing, topic)
            try:
                if not pending.done:
                    yield pending
                reply: Message = pending.result()
                return reply
            finally:
                session.end_request(outgoing)
                if self.session.orders.urgent:
                    self.flush()
        except Expired as expired:
            raise RequestTimeout(topic, expired.seconds, self.why_away) from None

    # What is to be in force

    def put_in_force(self, box: Mailbox | Service) -> Steps[None]:
        """Subscribe, or register a server, and wait until that is in force; ``leave`` must follow."""
        session = yield from self.connected()
        pending = session.subscribe(box) if isinstance(box, Mailbox) else session.serve(box)
        self.boxes[box] = False
        try:
            self.flush()
            yield from self._in_force(box, pending)
        except BaseException:
            self.leave(box)
            raise

    def _in_force(self, box: Mailbox | Service, pending: Pending) -> Steps[None]:
        try:
            yield from self.result(pending)
        except ConnectionLost:
            # The next connection has it in force before anybody is told of that one.
            yield from self.connected()
        if box.error is not None:
            raise box.error
        if box in self.boxes:
            self.boxes[box] = True

    def leave(self, box: Mailbox | Service) -> None:
        """End a subscription or a service."""
        self.boxes.pop(box, None)
        self.session.leave(box)
        self.flush_urgent()

    def drained(self, *, leaving: bool = False) -> Steps[None]:
        """Wait until the broker has everything that was published, and everything has come that was on its way here.

        The subscriptions then take nothing new: whoever takes from them finishes what has come, and that is the end.
        """
        yield from self.flushed()
        if leaving and self.session.error is not None:
            # Nobody takes from them any more.
            return
        session = yield from self.connected()
        draining = [
            box
            for box in self.boxes
            # One that is about to be entered is none yet.
            if isinstance(box, Mailbox) and not box.over and box.error is None and box.number not in session.orders
        ]
        for box in draining:
            box.over = True
        asked = [session.drain(box) for box in draining]
        self.flush()
        try:
            for pending in asked:
                yield from self.result(pending)
        finally:
            for box in draining:
                session.deliveries.forget(box)
                if not leaving:
                    box.drained = True
                    box.wake()

    # The end

    def leaving(self, error: BaseException | None, *, cancelled: bool) -> Steps[None]:
        """Leave the block: wait until the broker has taken over everything, unless it was cancelled; say goodbye.

        ``error`` is what the block is left by; it gets a note when leaving fails besides.
        """
        try:
            if self.error is None and not cancelled:
                yield from self._taken_over()
            elif self.lost_last and not self.session.heard and (error is None or self._pid == os.getpid()):
                # (In a forked child an exception is not about its parent's messages.)
                self.check()
        except SockbusError as failure:
            if error is None:
                raise
            error.add_note(f"besides, leaving the bus failed: {failure}")
        finally:
            self.session.goodbye()
            self.channel.flush()

    def _taken_over(self) -> Steps[None]:
        before = self.in_doubt
        lost: SockbusError | None = None
        # Where nothing is to leave, nobody waits for a broker that may not come back.
        while self.session.error is None or self.backlog:
            try:
                yield from self.drained(leaving=True)
                break
            except Expired as expired:
                if self.session.error is None or self.backlog:
                    raise self._not_taken_over(expired, self.in_doubt - before) from self.session.error
                break
            except SockbusError as error:
                if self.session.error is None and not isinstance(error, ConnectionLost):
                    raise
                # What had not been written may still leave by another connection.
                lost = error
        if self.in_doubt > before:
            self.check()
            raise ConnectionLost(
                f"the connection to {self.connecting.address} was lost while the bus was left"
                f"{also_lost(self.in_doubt - before)}: {lost or self.session.error}"
            ) from lost

    def _not_taken_over(self, expired: Expired, in_doubt: int) -> SockbusError:
        if self.session.error is not None:
            more = f", and perhaps {in_doubt} that were published before them" if in_doubt else ""
            return ConnectionLost(
                f"{len(self.backlog)} messages waited for a connection to {self.connecting.address}, and none came "
                f"back within {expired.seconds:g} s of leaving; they are lost{more}"
            )
        return LimitExceeded(
            f"the broker has not taken over everything published within {expired.seconds:g} s of leaving"
            f"{also_lost(in_doubt)}; does a subscriber not read?"
        )

    def left(self) -> None:
        """The bus was left: what still waits gets to know that."""
        self.end(ConnectionLost("this bus was left; connect again to use it"))

    def forked(self) -> None:
        """This process is a child that has inherited the connection, which goes on being its parent's."""
        # Nothing is sent, received or shut down. What had come is the parent's to take.
        self.channel.sock.close()
        for box in self.boxes:
            box.close()
        inherited = ConnectionLost(
            f"this bus was inherited by fork from process {self._pid}, whose connection it is; {self.instead}"
        )
        # Whether what was published arrives is the parent's to know: it is not counted here, nor taken out of what
        # another thread may have been in the middle of, but leaving does say that this side cannot tell.
        if self.error is None and self.session.welcome.done:
            publishes = self.session.sender.publishes
            self.lost_last = 0 if self.session.is_flushed else publishes.sent_messages - publishes.taken_messages
        self.session.ending = no_wake
        self.detour = True
        in_doubt = self.in_doubt
        self.session.fail(inherited)
        self.end(inherited)
        self.in_doubt = in_doubt
        self.unreported.clear()

    def forget(self) -> None:
        """All who wait are gone without having said so: nobody is woken when the bus ends."""
        self._room, self._slots, self._flushers, self.standing.changed = Gate(), Gate(), Gate(), Gate()
        for box in self.boxes:
            box.wake = no_wake
        self.backlog.forget()
        self.session.forget()

    def _on_room(self) -> None:
        super()._on_room()
        if self.error is not None:
            self._flushers.open_all()


def _fork() -> None:
    try:
        let_go()
    finally:
        for client in list(_clients):
            client.forked()


os.register_at_fork(before=look_around, after_in_parent=go_on, after_in_child=_fork)
