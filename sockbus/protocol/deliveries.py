"""Messages on their way into mailboxes.

``DELIVER`` stands in front and says whose the next publishes are; this room keeps that account, builds the messages,
and closes the fds of those that nobody wants any more.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import final

from ..errors import ProtocolError, SockbusError
from ..fd import Fd, close_fds
from ..message import Message, Peer
from . import body
from .frame import DELIVER_COUNTS, LENGTH_OFFSET, PREFIX_BYTES
from .inbox import TAG_LENGTH, Run, topics
from .lossy import LossyMailbox
from .mailbox import Mailbox
from .pieces import Assembly

__all__ = ["Deliveries", "message_of"]

# Topics whose decoded form is kept; more than this in use at once are decoded anew.
_TOPICS_KEPT = 4096


def message_of(run: Run, topic: str, sender: Peer, *, headers: bytes, data: bytes) -> Message:
    """A message with the fds of ``run``, which it then owns; those that the link could not carry are missing."""
    if not run.declared_fds:
        return Message(topic, data, sender, (), 0, headers)
    fds = tuple(map(Fd, run.fds))
    run.fds = ()
    return Message(topic, data, sender, fds, run.declared_fds - len(fds), headers)


def _counts(run: Run) -> tuple[int, ...]:
    """The body of DELIVER, [count, lost]: read at once in the fixed width in which this project's broker writes it."""
    data = run.body
    if len(data) == DELIVER_COUNTS.size:
        array, first, count, second, lost = DELIVER_COUNTS.unpack(data)
        if (array, first, second) == (0x92, 0xCE, 0xCE):
            return count, lost
    return body.integers(run, 2)


@final
class Deliveries:
    """The mailboxes of one session, and the front that the next publishes stand behind."""

    def __init__(self, closing: Container[int]) -> None:
        self.mailboxes: dict[int, Mailbox] = {}
        # Those that were left, and of which something may still be on its way.
        self._closing = closing
        #: mailboxes that got something since the runtime last woke their takers
        self.touched: dict[Mailbox, None] = {}
        self._front: Mailbox | None = None
        self._left = 0
        # Whether those are kept ones.
        self._retained = False
        self._topics: dict[bytes, str] = {}

    def on_deliver(self, run: Run) -> None:
        """A front: so many publishes for that mailbox, so many lost before them."""
        count, lost = _counts(run)
        if self._left:
            raise ProtocolError(f"a front came while {self._left} publishes of the one before were missing")
        front = self._front = self.mailboxes.get(run.correlation)
        if front is None and run.correlation not in self._closing:
            raise ProtocolError(f"subscription {run.correlation} does not exist")
        self._left = count
        self._retained = run.flags != 0
        if lost and front is not None:
            front.note_lost(lost)
            self.touched[front] = None

    def on_publish(
        self, run: Run, sender: Peer, assemble: Callable[[Assembly, Callable[[Assembly], None]], None]
    ) -> None:
        """Publishes for the mailbox in front; one that is not whole is handed to ``assemble`` with what to do then."""
        self._left -= run.count
        if self._left < 0:
            raise ProtocolError("a publish came without a front that says whose it is")
        front = self._front
        if run.flags or run.declared_fds:
            total, headers, at = run.parts()
            self._topic(run.topic)  # before anything owns the fds: it may raise
            assembly = Assembly(run, total, headers, at)
            if assembly.missing:
                retained = self._retained
                assemble(assembly, lambda whole: self._put(front, whole, sender, retained=retained))
            else:
                self._put(front, assembly, sender, retained=self._retained)
        elif front is not None:
            if front.is_lossy:
                self._put_each(front, run, sender)
            else:
                self._put_run(front, run, sender)

    def _put_run(self, mailbox: Mailbox, run: Run, sender: Peer) -> None:
        topic = self._topic(run.topic)
        put = mailbox.queue.append
        buffer, at, end = run.buffer, run.start, run.end
        skip = PREFIX_BYTES + len(run.topic)
        length_of = TAG_LENGTH.unpack_from
        first = len(mailbox.queue)
        while at < end:
            after = at + LENGTH_OFFSET + length_of(buffer, at)[1]
            put((Message(topic, buffer[at + skip : after], sender), after - at))
            at = after
        if self._retained:
            for index in range(first, len(mailbox.queue)):
                mailbox.queue[index][0].retained = True
        if mailbox.lost_before or mailbox.is_cut:
            mailbox.mark(mailbox.queue[first][0])
        self.touched[mailbox] = None

    def _put_each(self, mailbox: Mailbox, run: Run, sender: Peer) -> None:
        assert isinstance(mailbox, LossyMailbox)
        topic = self._topic(run.topic)
        skip = PREFIX_BYTES + len(run.topic)
        put = mailbox.put_retained if self._retained else mailbox.put
        for _, at, after in topics(run.buffer, run.start, run.end):
            put(Message(topic, run.buffer[at + skip : after], sender), after - at)
        self.touched[mailbox] = None

    def _put(self, mailbox: Mailbox | None, whole: Assembly, sender: Peer, *, retained: bool) -> None:
        if mailbox is None or mailbox.number not in self.mailboxes:
            close_fds(whole.first.fds)
            return
        message = message_of(
            whole.first, self._topic(whole.first.topic), sender, headers=whole.headers, data=whole.payload()
        )
        if isinstance(mailbox, LossyMailbox):
            put = mailbox.put_retained if retained else mailbox.put
            put(message, whole.cost)
        else:
            mailbox.mark(message)
            if retained:
                message.retained = True
            mailbox.queue.append((message, whole.cost))
        self.touched[mailbox] = None

    def _topic(self, raw: bytes) -> str:
        topic = self._topics.get(raw)
        if topic is None:
            if len(self._topics) >= _TOPICS_KEPT:
                self._topics.clear()
            try:
                topic = self._topics[raw] = raw.decode()
            except UnicodeDecodeError as error:
                raise ProtocolError(f"a topic is not UTF-8: {error}") from None
        return topic

    def wake(self) -> None:
        """Wake the takers of what has come."""
        touched, self.touched = self.touched, {}
        for mailbox in touched:
            if mailbox.is_lossy:
                mailbox.give_back()
            mailbox.wake()

    def end(self, number: int, error: SockbusError) -> None:
        """The broker has ended a subscription; what has come may still be taken."""
        mailbox = self.mailboxes.get(number)
        if mailbox is not None:
            if mailbox.error is None:
                mailbox.error = error
            self.touched[mailbox] = None

    def remove(self, mailbox: Mailbox) -> bool:
        """The mailbox was left, what still comes for it is thrown away; whether it was in force here."""
        was_here = self.forget(mailbox)
        mailbox.close()
        return was_here

    def forget(self, mailbox: Mailbox) -> bool:
        """Nothing comes for the mailbox any more; whether something could have."""
        if self._front is mailbox:
            self._front = None
        self.touched.pop(mailbox, None)
        was_here = self.mailboxes.get(mailbox.number) is mailbox
        if was_here:
            del self.mailboxes[mailbox.number]
        return was_here
