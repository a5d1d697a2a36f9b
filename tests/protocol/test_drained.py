"""A subscription that is drained: one UNSUBSCRIBE, and whatever is still on its way is no fault of the broker's."""

from __future__ import annotations

import itertools

import pytest

from sockbus.message import Peer
from sockbus.payload import encode_payload
from sockbus.protocol.frame import Kind, control, encode
from sockbus.protocol.handshake import peer_body
from sockbus.protocol.inbox import Inbox
from sockbus.protocol.lossy import mailbox_for
from sockbus.protocol.mailbox import Mailbox
from sockbus.protocol.overflow import Overflow
from sockbus.protocol.session import Session
from tests.protocol.test_backlog import session


def sent(by: Session) -> list[int]:
    """The kinds of what has left since."""
    kinds: list[int] = []
    inbox = Inbox(carries_fds=False)
    while (batch := by.outbox.batch()) is not None:
        kinds += [run.kind for run in inbox.receive(b"".join(batch.buffers))]
        by.outbox.sent(batch.size)
    return kinds


def subscribed(overflow: Overflow) -> tuple[Session, Mailbox]:
    by = session(7, itertools.count(1, 2), records=False)
    mailbox = mailbox_for(overflow, "t", None, 3, 1000, None, strip=False)
    by.subscribe(mailbox)
    by.receive(control(Kind.OK, correlation=mailbox.number))
    by.receive(control(Kind.PEER, peer_body(Peer(9, None, "stream", 0, 0, 1)), correlation=9))
    assert sent(by) == [Kind.SUBSCRIBE]
    return by, mailbox


def deliver(mailbox: Mailbox, count: int) -> bytes:
    frame = encode(Kind.PUBLISH, topic=b"t", payload=encode_payload("x"), sender=9)
    return control(Kind.DELIVER, [count, 0], correlation=mailbox.number) + count * frame


@pytest.mark.parametrize("overflow", list(Overflow))
def test_overflowing_while_drained_unsubscribes_once(overflow: Overflow) -> None:
    by, mailbox = subscribed(overflow)
    mailbox.over = True
    pending = by.drain(mailbox)
    by.receive(deliver(mailbox, 5))
    by.receive(control(Kind.OK, correlation=mailbox.number))
    assert sent(by) == [Kind.UNSUBSCRIBE]
    assert pending.succeeded
    assert mailbox.ready + mailbox.lost == 5


@pytest.mark.parametrize("left", [False, True])
def test_what_is_on_its_way_when_draining_is_given_up_is_thrown_away(left: bool) -> None:  # a parameter of the test
    by, mailbox = subscribed(Overflow.BLOCK)
    pending = by.drain(mailbox)
    if left:
        by.leave(mailbox)
    else:
        by.deliveries.forget(mailbox)
    by.receive(deliver(mailbox, 2))
    assert mailbox.ready == 0
    by.receive(control(Kind.OK, correlation=mailbox.number))
    assert (sent(by), by.error) == ([Kind.UNSUBSCRIBE], None)
    assert pending.succeeded
    by.receive(deliver(mailbox, 2))
    assert "does not exist" in str(by.error)
