"""What a peer may send, and hears of, while its user has left too much behind: all but publishes go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from sockbus.protocol.frame import Kind
from tests.broker.raw import Raw
from tests.brokers import BrokerProcess

LIMITS = {"link_queue_bytes": 20_000, "window_bytes": 50_000, "call_window_bytes": 4096}
#: where WINDOW has the bytes of publishes, of requests and of replies, and the messages taken over
PUBLISHES, REQUESTS, REPLIES, TAKEN = 0, 2, 4, 6


class Scene:
    """Peers of one user. ``leave_behind`` overdraws their account, until ``take`` takes what was left."""

    def __init__(self, address: str, member: Raw, early: Raw) -> None:
        self.address = address
        self.early = early
        self._member = member
        self._frame = b""
        # A group has no stall.
        member.subscribe("kept", credit=(1, 1, 1), group="g")
        member.subscribe("$SYS.peer.left", 3)

    def leave_behind(self) -> None:
        with Raw(self.address) as publisher:
            self._frame = publisher.frame(Kind.PUBLISH, "kept", bytes(10_000))
            publisher.send(self._frame * 4)
        while self._member.expect(Kind.PUBLISH).sender:
            continue

    def take(self) -> None:
        for _ in range(3):
            self._member.send(self._member.control(Kind.CREDIT, [1, len(self._frame), 0], correlation=1))
            self._member.expect(Kind.PUBLISH)


@pytest.fixture
def scene() -> Iterator[Scene]:
    limits = [word for name, value in LIMITS.items() for word in ("--limit", f"{name}={value}")]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(BrokerProcess(*limits))
        yield Scene(broker.stream, *(stack.enter_context(Raw(broker.stream)) for _ in range(2)))


def window(peer: Raw, name: int, beyond: int) -> int:
    """The window of one class, once it has risen beyond this."""
    told: int = max((frame.body[name] for frame in peer.passed if frame.kind is Kind.WINDOW), default=0)
    while told <= beyond:
        told = peer.expect(Kind.WINDOW).body[name]
    return told


def test_requests_and_replies_go_on_while_an_account_is_overdrawn(scene: Scene) -> None:
    scene.leave_behind()
    early = scene.early
    with Raw(scene.address) as late:
        assert late.welcome["window"][PUBLISHES] == 0
        early.serve("echo")
        asked, replied = late.welcome["window"][REQUESTS], early.welcome["window"][REPLIES]
        sent = answered = 0
        for number in range(1, 20, 2):
            frame = late.frame(Kind.REQUEST, "echo", bytes(3000), number)
            if sent >= asked:
                asked = window(late, REQUESTS, asked)
            late.send(frame)
            sent += len(frame)
            early.expect(Kind.REQUEST)
            reply = early.frame(Kind.REPLY, payload=bytes(3000), correlation=number + 1)
            if answered >= replied:
                replied = window(early, REPLIES, replied)
            early.send(reply)
            answered += len(reply)
            assert late.expect(Kind.REPLY).content == bytes(3000)
        assert min(sent, answered) > 2 * LIMITS["call_window_bytes"]
        # The windows for publishes are told with the others, and are as they were.
        told = [frame.body for peer in (early, late) for frame in peer.passed if frame.kind is Kind.WINDOW]
        assert {body[PUBLISHES] for body in told} <= {0, early.welcome["window"][PUBLISHES]}


def test_publishers_hear_what_was_taken_over_and_get_no_window_until_it_is_taken(scene: Scene) -> None:
    scene.leave_behind()
    early = scene.early
    granted = early.welcome["window"][PUBLISHES]
    early.send(early.frame(Kind.PUBLISH, "nobody", bytes(15_000)) * 3)
    body = early.expect(Kind.WINDOW).body
    assert (body[TAKEN], body[PUBLISHES]) == (3, granted)
    with Raw(scene.address) as late:
        scene.take()
        assert window(early, PUBLISHES, granted) >= granted + 45_000
        assert window(late, PUBLISHES, 0) == LIMITS["window_bytes"]
