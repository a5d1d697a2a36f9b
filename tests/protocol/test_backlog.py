"""What a lost session leaves behind: nothing that was begun is kept, nothing that was not is lost, and order holds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockbus.errors import ConnectionLost
from sockbus.message import Peer
from sockbus.protocol.backlog import Backlog
from sockbus.protocol.frame import Flag, Kind, control
from sockbus.protocol.handshake import LIMIT_NAMES, Welcome
from sockbus.protocol.inbox import Inbox
from sockbus.protocol.pending import Pending
from sockbus.protocol.session import Session

LIMITS = dict.fromkeys(LIMIT_NAMES, 512) | {
    "frame_bytes": 1 << 16, "message_bytes": 1 << 26, "header_bytes": 4096, "message_fds": 16, "link_fds": 64,
}  # fmt: skip


def session(number: int, numbers: Iterator[int], *, records: bool, window: int = 1 << 20) -> Session:
    """An open one, whose HELLO has left."""
    made = Session(carries_fds=True, records=records, own_socket=(0, 0), numbers=numbers)
    you = Peer(number, None, "stream", 0, 0, 1)
    made.receive(Welcome(("fds",), you, 1, 0, (window, 64, window, 64, window, 64, 0), LIMITS).encode())
    while (batch := made.outbox.batch()) is not None:
        made.outbox.sent(batch.size)
    return made


def publish(by: Session, number: int, size: int, *, flags: int = 0, fd: int = -1) -> Pending | None:
    """Queue one as a bus does: a plain one as a frame, others composed."""
    payload = [number, b"x" * size]
    if not flags and fd < 0 and size < 60_000:
        frame = by.sender.plain("t", payload)
        assert isinstance(frame, bytes)
        by.sender.publishes.sent_bytes += len(frame)
        by.sender.publishes.sent_messages += 1
        by.outbox.put_small(frame, len(frame))
        return None
    outgoing = by.sender.publish("t", payload, [fd] if fd >= 0 else (), None, flags=flags)
    outgoing.pending = Pending() if flags else None
    assert by.sender.send(outgoing)
    return outgoing.pending


def arrived(by: Session) -> Iterator[tuple[int, int]]:
    """The numbers and senders of what a session sends, as its broker reads it."""
    inbox = Inbox(carries_fds=True)
    while (batch := by.outbox.batch()) is not None:
        fds = tuple(map(os.dup, batch.fds.fds)) if batch.fds is not None else ()
        for run in inbox.receive(b"".join(batch.buffers), fds):
            for fd in run.fds:
                os.close(fd)
            if run.kind == Kind.PUBLISH:
                at = run.start
                while at < run.end:
                    yield payload_number(run.buffer, at), run.sender
                    at += 6 + int.from_bytes(run.buffer[at + 1 : at + 5])
        by.outbox.sent(batch.size)
    inbox.end()


def payload_number(frame: bytes, at: int) -> int:
    topic_length = frame[at + 9]
    payload = at + 26 + topic_length + (8 if frame[at + 8] & Flag.PIECED else 0)
    assert frame[payload] == 0x92
    if frame[payload + 1] < 0x80:
        return frame[payload + 1]
    width = {0xCC: 1, 0xCD: 2}[frame[payload + 1]]
    return int.from_bytes(frame[payload + 2 : payload + 2 + width])


kinds = st.tuples(st.sampled_from([0, 10, 300, 5000, 70_000, 150_000]), st.sampled_from([0, 0, 0, int(Flag.RECEIPT)]))


@pytest.mark.parametrize("records", [False, True])
@given(messages=st.lists(kinds, max_size=40), writes=st.lists(st.integers(1, 200_000), max_size=12), data=st.data())
def test_each_message_is_kept_or_in_doubt_and_never_both(
    records: bool,  # a parameter of the test
    messages: list[tuple[int, int]],
    writes: list[int],
    data: st.DataObject,
) -> None:
    numbers = itertools.count(1, 2)
    first = session(7, numbers, records=records, window=1 << 30)
    receipts = {}
    for number, (size, flags) in enumerate(messages):
        pending = publish(first, number, size, flags=flags)
        if pending is not None:
            receipts[number] = pending
    written = b""
    for size in writes:
        batch = first.outbox.batch()
        if batch is None:
            break
        sent = batch.size if records else min(size, batch.size)
        written += b"".join(batch.buffers)[:sent]
        first.outbox.sent(sent)
    backlog = Backlog(1 << 20)
    doubt = 0

    def ending() -> None:
        nonlocal doubt
        doubt = backlog.salvage(first)

    first.ending = ending
    first.fail(ConnectionLost("test"))
    second = session(8, numbers, records=data.draw(st.booleans()), window=1 << 30)
    backlog.move_to(second)
    backlog.feed(second)
    assert not backlog
    assert backlog.size_bytes == 0
    came = list(arrived(second))
    assert {sender for _, sender in came} <= {8}
    kept = [number for number, _ in came]
    # What was not begun is a suffix, in order.
    assert kept == list(range(len(messages) - len(kept), len(messages)))
    begun = [number for number in range(len(messages)) if number not in kept]
    assert doubt == sum(number not in receipts for number in begun)
    for number, pending in receipts.items():
        assert pending.done == (number in begun)
    # Nothing that is sent again had a byte written.
    assert len(begun) >= sum(1 for _ in whole_publishes(written))


def whole_publishes(written: bytes) -> Iterator[int]:
    at = 0
    while at + 7 <= len(written):
        if written[at + 6] == Kind.PUBLISH:
            yield at
        at += 6 + int.from_bytes(written[at + 1 : at + 5])


@pytest.mark.parametrize("records", [False, True])
def test_what_was_taken_over_is_not_in_doubt(records: bool) -> None:  # a parameter of the test
    lost = session(7, itertools.count(1, 2), records=records)
    for number in range(20):
        publish(lost, number, 10)
    batch = lost.outbox.batch()
    assert batch is not None
    lost.outbox.sent(batch.size)
    lost.receive(control(Kind.WINDOW, [1 << 20, 64, 1 << 20, 64, 1 << 20, 64, 15]))
    assert Backlog(0).salvage(lost) == 5


@pytest.mark.parametrize("written", [False, True])
def test_fds_go_with_their_message_or_are_closed(written: bool) -> None:  # a parameter of the test
    numbers = itertools.count(1, 2)
    lost = session(7, numbers, records=False)
    receive, send = os.pipe()
    publish(lost, 1, 10, fd=receive)
    publish(lost, 2, 10)
    os.close(receive)
    if written:
        batch = lost.outbox.batch()
        assert batch is not None
        lost.outbox.sent(1)
    backlog = Backlog(1 << 20)

    def ending() -> None:
        backlog.salvage(lost)

    lost.ending = ending
    lost.fail(ConnectionLost("test"))
    after = session(8, numbers, records=False)
    backlog.move_to(after)
    backlog.feed(after)
    assert [number for number, _ in arrived(after)] == ([2] if written else [1, 2])
    with pytest.raises(BrokenPipeError):
        os.write(send, b"nobody has the other end")
    os.close(send)


def test_window_is_kept_to_and_the_rest_waits() -> None:
    numbers = itertools.count(1, 2)
    lost = session(7, numbers, records=False, window=1 << 30)
    for number in range(100):
        publish(lost, number, 1000)
    backlog = Backlog(1 << 20)
    assert backlog.salvage(lost) == 0
    assert len(backlog) == 100
    after = session(8, numbers, records=False, window=10_000)
    backlog.move_to(after)
    backlog.feed(after)
    assert [number for number, _ in arrived(after)] == list(range(10))
    assert (len(backlog), after.sender.publishes.sent_messages) == (90, 10)
    after.receive(control(Kind.WINDOW, [1 << 20, 64, 1 << 20, 64, 1 << 20, 64, 10]))
    backlog.feed(after)
    assert [number for number, _ in arrived(after)] == list(range(10, 100))


def test_what_never_leaves_is_told_to_who_waits() -> None:
    lost = session(7, itertools.count(1, 2), records=False)
    pending = publish(lost, 1, 10, flags=Flag.RECEIPT)
    assert pending is not None
    backlog = Backlog(1 << 20)
    backlog.salvage(lost)
    assert not pending.done
    backlog.fail(ConnectionLost("over"))
    with pytest.raises(ConnectionLost, match="over"):
        pending.result()


def test_who_waits_is_told_and_the_rest_is_counted() -> None:
    lost = session(7, itertools.count(1, 2), records=False)
    told: list[str] = []
    for number in range(3):
        publish(lost, number, 10)
    given_up = publish(lost, 3, 10, flags=Flag.RECEIPT)
    waits = publish(lost, 4, 10, flags=Flag.RECEIPT)
    assert waits is not None
    assert given_up is not None
    waits.attach(lambda: told.append("told"))
    backlog = Backlog(1 << 20)
    assert backlog.salvage(lost) == 0
    assert (len(backlog), backlog.unanswered) == (5, 3)
    assert backlog.fail(ConnectionLost("over"))
    assert told == ["told"]
    assert (len(backlog), backlog.unanswered, backlog.fail(ConnectionLost("again"))) == (0, 0, False)
    assert given_up.done


def test_what_was_flushed_is_not_in_doubt_before_who_flushes_has_heard() -> None:
    lost = session(7, itertools.count(1, 2), records=False)
    for number in range(3):
        publish(lost, number, 10)
    pending = lost.flush()
    while (batch := lost.outbox.batch()) is not None:
        lost.outbox.sent(batch.size)
    lost.receive(control(Kind.OK, correlation=1))
    assert pending.succeeded
    assert Backlog(0).salvage(lost) == 0
