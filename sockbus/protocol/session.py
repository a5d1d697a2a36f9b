"""The client's brain: what a connection means, without the connection.

A ``Session`` turns what a program wants into frames in its outbox, and what came into messages in mailboxes, calls of
services and answers to whoever waits. It holds the credit, the windows and the numbers. A runtime reads, writes and
waits; everything else is here, once for all of them. Whoever has to wait leaves a ``wake``.

Its invariant: a message is in exactly one place, and so are its fds: an inbox, an assembly, a mailbox, a taker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import final

from ..errors import BrokerClosing, ConnectionLost, LimitExceeded, ProtocolError, SockbusError
from ..fd import close_fds
from ..message import Peer
from . import body
from .calls import Calls
from .deliveries import Deliveries
from .frame import Kind
from .handshake import FDS, Handshake, Hello, Role, State, Welcome, peer_from
from .inbox import Inbox, Run
from .lossy import LossyMailbox
from .mailbox import Mailbox, Service, no_wake
from .orders import Orders, error_of
from .outbox import Lane, Outbox
from .pending import Pending
from .pieces import Assemblies
from .sender import Outgoing, Sender

__all__ = ["Session"]


@final
class Session:
    """One connection to a broker, from HELLO to its end.

    ``carries_fds`` and ``records`` are the transport's; ``own_socket`` is the device and inode of its socket.
    ``room`` is called when something may have become possible that was not, and when the session ended; ``ending``
    before that, while what it had queued and who waits are still there for who goes on with another session; it may
    put what more there is to say into ``error``.
    ``numbers`` are ``Orders``'.
    """

    def __init__(
        self,
        *,
        carries_fds: bool,
        records: bool,
        own_socket: tuple[int, int],
        numbers: Iterator[int],
        name: str | None = None,
    ) -> None:
        self.handshake = Handshake(Role.CLIENT)
        self.inbox = Inbox(carries_fds=carries_fds, fds_may_miss=not carries_fds, record=records)
        self.outbox = Outbox(records=records)
        self.orders = Orders(self.outbox, numbers)
        self.deliveries = Deliveries(self.orders)
        self.calls = Calls(self.orders)
        self.peer: Peer
        #: makes what this side sends, once the broker has said WELCOME
        self.sender: Sender
        self.limits: dict[str, int] = {}
        #: why the session ended; None while it lives
        self.error: SockbusError | None = None
        self.room: Callable[[], None] = no_wake
        self.ending: Callable[[], None] = no_wake
        self.request_ended: Callable[[], None] = no_wake
        #: answered when the broker has said WELCOME
        self.welcome = Pending()
        self._carries_fds = carries_fds
        self._own_socket = own_socket
        #: the last flush, answered or not
        self.flushing: Pending | None = None
        # Published when the last flush was asked for.
        self._flushed_bytes = 0
        #: the session ended, and somebody was told
        self.heard = False
        self._peers: dict[int, Peer] = {}
        self._assemblies = Assemblies()
        self._handlers: dict[int, Callable[[Run], None]] = {
            Kind.WELCOME: self._on_welcome,
            Kind.ERROR: self._on_error,
            Kind.GOODBYE: self._on_goodbye,
            Kind.OK: self.orders.on_ok,
            Kind.PIECE: self._assemblies.on_piece,
            Kind.RECEIPT: self.orders.on_receipt,
            Kind.WINDOW: self._on_window,
            Kind.PEER: self._on_peer,
            Kind.GONE: self._on_gone,
            Kind.DELIVER: self.deliveries.on_deliver,
            Kind.CALL: self.calls.on_call,
            Kind.ANSWER: self.calls.on_answer,
            Kind.PUBLISH: self._on_message,
            Kind.REQUEST: self._on_message,
            Kind.REPLY: self._on_message,
        }
        self._message_handlers = {
            int(Kind.PUBLISH): self.deliveries.on_publish,
            int(Kind.REQUEST): self.calls.on_request,
            int(Kind.REPLY): self.calls.on_reply,
        }
        self.outbox.put(Lane.CONTROL, Hello(name, (FDS,) if carries_fds else ()).encode())

    # Life

    def receive(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Take what one receive brought, and wake whoever waits for it. Never raises: a violation ends the session."""
        handlers = self._handlers
        try:
            for run in self.inbox.receive(data, fds):
                try:
                    handler = handlers.get(run.kind)
                    if self.handshake.state is not State.OPEN or handler is None:
                        self.handshake.received(Kind(run.kind))
                    if handler is None:
                        raise ProtocolError(f"a {Kind(run.kind).name} frame came, which only clients send")
                    handler(run)
                except SockbusError:
                    # Each handler raises before it hands the fds on.
                    close_fds(run.fds)
                    raise
                if self.error is not None:
                    break
        except SockbusError as error:
            self.fail(ProtocolError(f"the broker broke the protocol: {error}"))
        if self.deliveries.touched:
            self.deliveries.wake()
        if self.calls.touched:
            self.calls.wake()

    def ended(self) -> None:
        """The stream ended."""
        try:
            self.inbox.end()
            self.fail(ConnectionLost("the broker has closed the connection; is it still running?"))
        except ProtocolError as error:
            self.fail(ConnectionLost(f"the broker is gone: {error}"))

    def fail(self, error: SockbusError) -> None:
        """The session is over: everything that waits gets this error, and nothing is sent any more."""
        if self.error is not None:
            return
        self.error = error
        self.handshake.state = State.CLOSED
        self.inbox.close()
        self._assemblies.close()
        self.ending()
        # It may have more to say of what that means.
        error = self.error
        self.outbox.close()
        heard = self.orders.fail(error)
        self.heard = self.calls.fail(error) or heard or self.heard
        if not self.welcome.done:
            self.welcome.fail(error)
        for mailbox in self.deliveries.mailboxes.values():
            mailbox.wake()
        for service in self.calls.services.values():
            service.wake()
        self.room()

    def forget(self) -> None:
        """All who wait are gone without having said so: nobody is woken when the session ends."""
        self.room = no_wake
        waiting: list[Pending | Mailbox | Service] = [self.welcome, *self.orders.waiting()]
        waiting += [*self.calls.requests.values(), *self.deliveries.mailboxes.values(), *self.calls.services.values()]
        for each in waiting:
            each.wake = no_wake

    @property
    def is_flushed(self) -> bool:
        """Whether the broker is known to have taken over everything published."""
        publishes = self.sender.publishes
        answered = self.flushing is None or self.flushing.succeeded
        if answered and publishes.sent_bytes == self._flushed_bytes:
            return True
        # Those that ask for a receipt hear for themselves.
        return publishes.sent_messages == publishes.taken_messages

    def check(self) -> None:
        """Raise why the session ended, if it did."""
        if self.error is not None:
            self.heard = True
            raise type(self.error)(*self.error.args) from self.error

    @property
    def owes(self) -> bool:
        """Whether a tick would give something back."""
        return any(mailbox.owes for mailbox in self.deliveries.mailboxes.values())

    def tick(self) -> bool:
        """Give back what was taken and is still owed, as must happen within a second; whether to tick again."""
        again = False
        for mailbox in self.deliveries.mailboxes.values():
            mailbox.give_back()
            again = again or mailbox.ready > 0
        return again

    # What a program wants

    def send(self, outgoing: Outgoing) -> bool:
        """Queue a message of ``sender``, unless there is no room yet: ``room`` is called when that may have changed."""
        if self.error is not None:
            self.check()
        if outgoing.kind is Kind.REQUEST and self.must_wait_for_reply():
            return False
        return self.sender.send(outgoing)

    def must_wait_for_reply(self) -> bool:
        """Whether a request has to wait until another has ended; ``request_ended`` is called then."""
        return len(self.calls.requests) >= self.limits["pending_requests"]

    def await_reply(self, sent: Outgoing, topic: str) -> Pending:
        """Who waits for the reply to a request; ``end_request`` must follow, however the wait ends."""
        pending = self.calls.requests[sent.correlation] = Pending(topic)
        return pending

    def end_request(self, request: Outgoing) -> None:
        """The request is over for whoever asked: it has its answer, or does not wait for it any more."""
        if self.calls.requests.pop(request.correlation, None) is not None and self.error is None:
            # In the lane of the request, which it must not pass.
            self.orders.put(Kind.CANCEL, correlation=request.correlation, lane=Lane.CALLS)
        self.request_ended()

    def flush(self) -> Pending:
        """Who waits until the broker has taken over everything published so far."""
        self.check()
        self.flushing = self.orders.ask(Kind.FLUSH, self.orders.number())
        self._flushed_bytes = self.sender.publishes.sent_bytes
        return self.flushing

    def subscribe(self, mailbox: Mailbox) -> Pending:
        """Put a mailbox in force; who waits until it is. LimitExceeded."""
        self.check()
        self._below("subscriptions", len(self.deliveries.mailboxes) + len(self.orders.watches))
        mailbox.number = self.orders.number()
        mailbox.credit = self._give_back
        if isinstance(mailbox, LossyMailbox):
            mailbox.unsubscribe = self._unsubscribe
        self.deliveries.mailboxes[mailbox.number] = mailbox
        return self.orders.ask(Kind.SUBSCRIBE, mailbox.number, mailbox.begin(), topic=mailbox.pattern.encode())

    def drain(self, mailbox: Mailbox) -> Pending:
        """Take nothing new for a mailbox; who waits until all that was on its way is in it."""
        self.check()
        mailbox.unsubscribed = True
        return self.orders.ask(Kind.UNSUBSCRIBE, mailbox.number)

    def serve(self, service: Service) -> Pending:
        """Put a service in force; who waits until it is. LimitExceeded."""
        self.check()
        self._below("servers", len(self.calls.services))
        service.number = self.orders.number()
        self.calls.services[service.number] = service
        # A broker hands over at most pending_requests in any case.
        options = {"concurrency": min(service.concurrency, self.limits["pending_requests"])}
        return self.orders.ask(Kind.SERVE, service.number, options, topic=service.pattern.encode())

    def watch(self, raw: bytes, subscribers: int, servers: int) -> tuple[int, Pending]:
        """As ``orders.watch``, whose ``unwatch`` must follow. LimitExceeded."""
        self.check()
        self._below("subscriptions", len(self.deliveries.mailboxes) + len(self.orders.watches))
        return self.orders.watch(raw, subscribers, servers)

    def leave(self, box: Mailbox | Service) -> None:
        """End a subscription or a service; what is on its way is thrown away, its fds closed."""
        was_here = self.deliveries.remove(box) if isinstance(box, Mailbox) else self.calls.remove(box)
        if not was_here or self.error is not None:
            return
        if isinstance(box, Service):
            self.orders.leave(Kind.UNSERVE, box.number)
        elif not box.unsubscribed:
            self._unsubscribe(box)

    def goodbye(self) -> None:
        """Say that this side leaves; nothing is sent after it."""
        if self.error is None:
            self.orders.put_last(Kind.GOODBYE, {"text": "left"})

    # Frames

    def _below(self, name: str, count: int) -> None:
        if count >= self.limits[name]:
            raise LimitExceeded(
                f"this connection has {count} {name} already, as many as {name} = {self.limits[name]} allows; leave "
                f"one, or raise it with --limit {name}=N at the broker"
            )

    def _give_back(self, mailbox: Mailbox, messages: int, size: int, fds: int) -> None:
        here = mailbox.number in self.deliveries.mailboxes and self.error is None
        if here and mailbox.error is None and not mailbox.over:
            self.orders.put(Kind.CREDIT, [messages, size, fds], correlation=mailbox.number)

    def _unsubscribe(self, mailbox: Mailbox) -> None:
        self.orders.leave(Kind.UNSUBSCRIBE, mailbox.number)

    def _on_welcome(self, run: Run) -> None:
        welcome = Welcome.decode(run)
        self.peer = welcome.you
        self.orders.sender = self.peer.id
        self.limits = welcome.limits
        carries_fds = self._carries_fds and FDS in welcome.features
        self.sender = Sender(
            self.peer.id, self.orders, self.outbox, self.limits, self._own_socket, carries_fds=carries_fds
        )
        self.calls.sender = self.sender
        self.sender.grant(welcome.window)
        self.welcome.resolve(welcome)

    def _on_error(self, run: Run) -> None:
        error = error_of(run)
        if not run.correlation:
            self.fail(error)
            return
        pending = self.orders.take(run.correlation) or self.calls.requests.pop(run.correlation, None)
        if pending is not None:
            pending.fail(error)
        else:
            self.deliveries.end(run.correlation, error)

    def _on_goodbye(self, run: Run) -> None:
        self.fail(BrokerClosing(f"the broker has closed the connection: {body.text(body.mapping(run), 'text')}"))

    def _on_window(self, run: Run) -> None:
        self.sender.grant(body.integers(run, 7))
        self.room()

    def _on_peer(self, run: Run) -> None:
        self._peers[run.correlation] = peer_from(run.correlation, body.mapping(run))

    def _on_gone(self, run: Run) -> None:
        body.nothing(run)
        self._peers.pop(run.correlation, None)

    def _on_message(self, run: Run) -> None:
        if run.fds:
            self.orders.note_fds(len(run.fds), self.limits["link_fds"])
        sender = self._peers.get(run.sender)
        if sender is None:
            raise ProtocolError(f"a message came from peer {run.sender}, who was not introduced")
        self._message_handlers[run.kind](run, sender, self._assemblies.start)
