"""Credit: whatever is taken and put back, exactly what was taken in the end is given back, and never more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockbus.message import Message, Peer
from sockbus.protocol.mailbox import Mailbox

PEER = Peer(1, None, "stream", 0, 0, 1)
CAPACITY, CAPACITY_BYTES = 8, 1000


class Books:
    """A mailbox, what came into it, and the credit that it gave back."""

    def __init__(self, group: str | None) -> None:
        self.mailbox = Mailbox("t", group, CAPACITY, CAPACITY_BYTES, strip=False)
        self.mailbox.credit = self._credit
        self.number = self.came = self.cost = 0
        self.given = (0, 0)
        #: messages of each CREDIT
        self.credits: list[int] = []

    def _credit(self, _: Mailbox, messages: int, size: int, fds: int) -> None:
        assert messages > 0
        self.credits.append(messages)
        self.given = (self.given[0] + messages, self.given[1] + size)
        assert self.given[0] <= self.came
        assert self.given[1] <= self.cost
        assert fds == 0

    def put(self, size: int) -> None:
        self.mailbox.queue.append((Message("t", b"%d" % self.number, PEER), size))
        self.number += 1
        self.came += 1
        self.cost += size

    def reconnect(self) -> None:
        """The next broker is owed what it is told of."""
        self.mailbox.cut()
        self.came, self.cost, fds = self.mailbox.begin().get("outstanding", [0, 0, 0])  # type: ignore[misc]
        assert (self.came >= len(self.mailbox.queue), fds) == (True, 0)
        self.given = (0, 0)


acts = st.lists(
    st.one_of(
        st.integers(1, 300),
        st.sampled_from(["take", "take all", "take and put back", "take all and put back", "tick", "reconnect"]),
    ),
    max_size=60,
)


@given(st.sampled_from([None, "g"]), acts)
def test_what_is_put_back_is_taken_next_and_credit_adds_up(group: str | None, acts: list[int | str]) -> None:
    books = Books(group)
    mailbox = books.mailbox
    taken: list[bytes] = []
    for act in [*acts, "take all", "take all"]:
        match act:
            case int():
                books.put(act)
            case "tick":
                mailbox.give_back()
            case "reconnect":
                books.reconnect()
            case "take" | "take and put back":
                message = mailbox.take()
                if message is not None and act == "take":
                    taken.append(message.data)
                elif message is not None:
                    mailbox.put_back([message])
            case _:
                messages = mailbox.take_all()
                if messages and act == "take all":
                    taken += [message.data for message in messages]
                elif messages:
                    mailbox.put_back(messages)
    assert taken == [b"%d" % number for number in range(books.number)]
    mailbox.give_back()
    assert books.given == (books.came, books.cost)
    assert not mailbox.owes


@pytest.mark.parametrize("group", [None, "g"])
def test_credit_is_owed_until_it_is_given_back(group: str | None) -> None:
    books = Books(group)
    for _ in range(3):
        books.put(10)
    assert not books.mailbox.owes
    books.mailbox.take()
    # In a group the first one counts when its taker comes back.
    assert books.mailbox.owes is (group is None)
    books.mailbox.take()
    assert books.mailbox.owes
    books.mailbox.give_back()
    assert not books.mailbox.owes


def test_credit_comes_back_by_halves_and_when_the_queue_empties() -> None:
    books = Books(None)
    for _ in range(CAPACITY - 1):
        books.put(10)
    for _ in range(CAPACITY - 1):
        books.mailbox.take()
    assert books.credits == [CAPACITY // 2, CAPACITY - 1 - CAPACITY // 2]


def test_member_of_a_group_that_has_done_all_says_so_at_once() -> None:
    books = Books("g")
    books.put(10)
    books.mailbox.take()
    assert books.credits == []
    assert books.mailbox.take() is None
    assert books.credits == [1]
