"""A mailbox that drops: what it gives, what it counts, and the credit that it gives back on arrival."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus import SubscriptionStalled
from sockbus.fd import Fd
from sockbus.message import Message, Peer
from sockbus.protocol.lossy import LossyMailbox
from sockbus.protocol.mailbox import FD_CAPACITY, Mailbox
from sockbus.protocol.overflow import Overflow

PEER = Peer(1, None, "stream", 0, 0, 1)
POLICIES = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST, Overflow.DISCONNECT]


class Books:
    """A mailbox, what came into it, and the credit that it gave back."""

    def __init__(self, overflow: Overflow, capacity: int = 3, capacity_bytes: int = 1000) -> None:
        self.mailbox = LossyMailbox("t", None, capacity, capacity_bytes, overflow, strip=False)
        self.mailbox.credit = self._credit
        self.mailbox.unsubscribe = self._unsubscribe
        self.left = 0
        self.came = self.cost = 0
        self.given = (0, 0, 0)

    def _credit(self, _: Mailbox, messages: int, size: int, fds: int) -> None:
        self.given = (self.given[0] + messages, self.given[1] + size, self.given[2] + fds)

    def _unsubscribe(self, _: Mailbox) -> None:
        self.left += 1

    def put(self, topic: str = "t", size: int = 10, fds: tuple[Fd, ...] = ()) -> None:
        self.mailbox.put(Message(topic, b"%d" % self.came, PEER, fds), size)
        self.came += 1
        self.cost += size

    def take_all(self) -> list[tuple[int, int]]:
        return [(int(message.data), message.lost) for message in self.mailbox.take_all()]


@pytest.mark.parametrize(
    ("overflow", "story"),
    [
        (Overflow.DROP_OLDEST, [(7, 7), (8, 0), (9, 0)]),
        (Overflow.DROP_NEWEST, [(0, 0), (1, 0), (2, 0)]),
        (Overflow.LATEST, [(9, 9)]),
        (Overflow.DISCONNECT, [(0, 0), (1, 0), (2, 0)]),
    ],
)
def test_what_is_dropped_is_said_where_it_was(overflow: Overflow, story: list[tuple[int, int]]) -> None:
    books = Books(overflow)
    for _ in range(10):
        books.put()
    assert books.mailbox.ready == len(story)
    assert books.take_all() == story
    assert books.mailbox.lost == 10 - len(story)
    if overflow is not Overflow.DISCONNECT:
        books.put()
        assert books.take_all() == [(10, 7 if overflow is Overflow.DROP_NEWEST else 0)]


def test_latest_puts_a_replacement_at_the_tail_and_evicts_the_oldest() -> None:
    books = Books(Overflow.LATEST)
    for topic in "abacbd":
        books.put(topic)
    assert books.take_all() == [(3, 3), (4, 0), (5, 0)]


def test_losses_on_the_way_count_with_its_own() -> None:
    books = Books(Overflow.DROP_OLDEST, capacity=1)
    books.mailbox.note_lost(5)
    books.put()
    books.mailbox.note_lost(2)
    books.put()
    books.mailbox.note_lost(1)
    assert books.take_all() == [(1, 8)]
    assert books.mailbox.lost == 9
    books.put()
    assert books.take_all() == [(2, 1)]


@pytest.mark.parametrize("overflow", POLICIES[:3])
def test_credit_comes_back_on_arrival(overflow: Overflow) -> None:
    books = Books(overflow)
    for _ in range(10):
        books.put()
    assert books.mailbox.owes
    books.mailbox.give_back()
    assert books.given == (10, 100, 0)
    books.take_all()
    assert (books.given, books.mailbox.owes) == ((10, 100, 0), False)


def test_disconnect_gives_what_had_come_and_then_no_credit_and_nothing_more() -> None:
    books = Books(Overflow.DISCONNECT)
    for _ in range(3):
        books.put()
    books.mailbox.give_back()
    assert (books.mailbox.error, books.left) == (None, 0)
    for _ in range(4):
        books.put()
    assert isinstance(books.mailbox.error, SubscriptionStalled)
    assert "'t'" in str(books.mailbox.error)
    books.mailbox.give_back()
    assert (books.given, books.mailbox.owes) == ((3, 30, 0), False)
    assert books.take_all() == [(0, 0), (1, 0), (2, 0)]
    books.put()
    assert (books.take_all(), books.mailbox.lost, books.left) == ([], 5, 1)


@pytest.mark.parametrize("overflow", POLICIES)
def test_what_was_put_back_is_never_dropped(overflow: Overflow) -> None:
    books = Books(overflow)
    for topic in "abc":
        books.put(topic)
    taken = books.mailbox.take_all()
    for topic in "abc":
        books.put(topic)
    books.mailbox.put_back(taken)
    for topic in "abc":
        books.put(topic)
    assert books.mailbox.ready == 6
    dropped = 0 if overflow in (Overflow.DROP_NEWEST, Overflow.DISCONNECT) else 3
    assert books.take_all() == [(0, 0), (1, 0), (2, 0), (3 + dropped, dropped), (4 + dropped, 0), (5 + dropped, 0)]


@pytest.mark.parametrize("overflow", POLICIES)
def test_descriptors_of_what_is_dropped_are_closed(overflow: Overflow) -> None:
    books = Books(overflow, capacity=1000)
    fds = [Fd(os.open(os.devnull, os.O_RDONLY)) for _ in range(FD_CAPACITY + 6)]
    for number, fd in enumerate(fds):
        books.put(topic=str(number), fds=(fd,))
    books.mailbox.give_back()
    assert sum(not fd.closed for fd in fds) == FD_CAPACITY
    taken = books.mailbox.take()
    assert taken is not None
    assert not taken.fds[0].closed
    taken.close()
    books.mailbox.close()
    assert all(fd.closed for fd in fds)


acts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 60)),
        st.integers(1, 3),
        st.sampled_from(["take", "take all", "take and put back", "take all and put back"]),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(st.sampled_from(POLICIES), st.integers(1, 6), st.integers(1, 200), acts)
def test_every_message_is_taken_or_counted_and_in_order(
    overflow: Overflow, capacity: int, capacity_bytes: int, acts: list[tuple[str, int] | int | str]
) -> None:
    books = Books(overflow, capacity, capacity_bytes)
    mailbox = books.mailbox
    taken: list[Message] = []
    # What each number is: a message, or lost on the way.
    numbers: list[int | None] = []
    waiting: list[tuple[int, str, int]] = []  # of the model: all but what was put back
    back: list[int] = []
    for act in [*acts, "take all", "take all"]:
        match act:
            case (topic, size):
                new = (books.came, topic, size)
                numbers.append(books.came)
                over = mailbox.error is not None
                books.put(topic, size)
                kept = [each for each in waiting if overflow is not Overflow.LATEST or each[1] != topic]
                while (
                    not over
                    and kept
                    and (len(kept) >= capacity or sum(each[2] for each in kept) + size > capacity_bytes)
                ):
                    if overflow in (Overflow.DROP_NEWEST, Overflow.DISCONNECT):
                        over = True
                    else:
                        kept.pop(0)
                waiting = kept if over else [*kept, new]
            case int():
                mailbox.note_lost(act)
                numbers += [None] * act
            case _:
                messages = mailbox.take_all() if "all" in act else [m for m in [mailbox.take()] if m is not None]
                expected = [*back, *(each[0] for each in waiting)]
                if "all" not in act:
                    expected = expected[:1]
                assert [int(message.data) for message in messages] == expected
                from_back = min(len(back), len(expected))
                waiting = waiting[len(expected) - from_back :]
                back = back[from_back:]
                if "put back" in act:
                    mailbox.put_back(messages)
                    back = [*expected, *back]
                else:
                    taken += messages
        assert mailbox.ready == len(back) + len(waiting)
        gone = len(numbers) - len(taken) - mailbox.ready
        assert mailbox.lost == gone
    at = 0
    for message in taken:
        at += message.lost
        assert numbers[at] == int(message.data)
        at += 1


def retained(books: Books, data: bytes) -> None:
    books.mailbox.put_retained(Message("t", data, PEER), 10)


def test_what_waited_when_the_connection_was_lost_comes_before_the_next_kept_values() -> None:
    books = Books(Overflow.DROP_OLDEST)
    for _ in range(5):
        books.put()
    books.mailbox.cut()
    retained(books, b"90")
    retained(books, b"91")
    books.put()
    came = [(int(each.data), each.lost, each.interrupted, each.retained) for each in books.mailbox.take_all()]
    assert came == [
        (3, 3, False, False),
        (4, 0, False, False),
        (90, 0, True, True),
        (91, 0, False, True),
        (5, 0, False, False),
    ]
    assert books.mailbox.lost == 3


def test_each_place_where_the_connection_was_lost_is_marked() -> None:
    books = Books(Overflow.DROP_OLDEST)
    for _ in range(3):
        books.mailbox.cut()
        books.put()
    assert [message.interrupted for message in books.mailbox.take_all()] == [True, True, True]
    books.mailbox.cut()
    books.mailbox.cut()
    books.put()
    books.put()
    assert [message.interrupted for message in books.mailbox.take_all()] == [True, False]
    books.mailbox.cut()
    for _ in range(4):
        books.put()
    assert [message.interrupted for message in books.mailbox.take_all()] == [True, False, False]


def came(books: Books) -> list[tuple[int, int, bool, bool]]:
    messages = books.mailbox.take_all()
    return [(int(message.data), message.lost, message.interrupted, message.retained) for message in messages]


def put_kept(books: Books, number: int, size: int = 10) -> None:
    books.mailbox.put_retained(Message(f"kept{number}", b"%d" % number, PEER), size)


@pytest.mark.parametrize("overflow", POLICIES)
def test_each_interruption_is_told_where_it_was(overflow: Overflow) -> None:
    books = Books(overflow)
    for topic in "abc":
        books.put(topic)
        books.mailbox.cut()
        books.mailbox.cut()  # an attempt that failed
    assert came(books) == [(0, 0, False, False), (1, 0, True, False), (2, 0, True, False)]
    books.put()
    books.put("d")
    assert came(books) == [(3, 0, True, False), (4, 0, False, False)]


@pytest.mark.parametrize("overflow", POLICIES)
def test_interruptions_with_nothing_left_between_are_told_once(overflow: Overflow) -> None:
    books = Books(overflow, capacity=1)
    books.put()
    books.mailbox.cut()
    books.mailbox.note_lost(2)
    books.mailbox.cut()
    assert came(books) == [(0, 0, False, False)]
    books.put()
    books.mailbox.cut()
    assert came(books) == [(1, 2, True, False)]


@pytest.mark.parametrize("overflow", POLICIES)
def test_kept_values_of_a_new_connection_come_behind_what_was_there(overflow: Overflow) -> None:
    books = Books(overflow)
    put_kept(books, 100)
    books.put("a")
    books.put("b")
    books.mailbox.cut()
    books.mailbox.note_lost(4)
    put_kept(books, 101)
    put_kept(books, 102)
    books.put("c")
    assert books.mailbox.ready == 6
    assert came(books) == [
        (100, 0, False, True),
        (0, 0, False, False),
        (1, 0, False, False),
        (101, 4, True, True),
        (102, 0, False, True),
        (2, 0, False, False),
    ]


def test_what_is_dropped_around_kept_values_is_said_where_it_was() -> None:
    books = Books(Overflow.DROP_OLDEST, capacity=2)
    books.put()
    books.put()
    books.mailbox.cut()
    put_kept(books, 100)
    for _ in range(3):
        books.put()
    assert came(books) == [(100, 2, True, True), (3, 1, False, False), (4, 0, False, False)]
    assert books.mailbox.lost == 3


@pytest.mark.parametrize("overflow", POLICIES)
def test_kept_values_of_a_lost_connection_are_outstanding_in_the_next(overflow: Overflow) -> None:
    books = Books(overflow)
    put_kept(books, 100, 70)
    put_kept(books, 101, 70)
    books.put()  # its credit came back when it arrived
    books.mailbox.cut()
    assert books.mailbox.begin()["outstanding"] == [2, 140, 0]
    put_kept(books, 102, 30)
    assert len(came(books)) == 4
    books.mailbox.give_back()
    assert books.given == (3, 170, 0)
    assert "outstanding" not in books.mailbox.begin()
