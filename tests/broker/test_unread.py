"""A peer that reads nothing: what it asks for must not pile up in the broker, and must all be there when it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sockbus.protocol.frame import Flag, Kind
from tests.broker.crowd import FULL
from tests.broker.outside import eventually, resident_bytes, status
from tests.broker.raw import PATIENCE, Raw, open_files
from tests.brokers import BrokerProcess

MIB = 1 << 20

# What makes more than it takes: a peer that sends it, and reads nothing of what comes of it.
UNREAD: dict[str, Callable[[Raw, int], bytes]] = {
    "refused requests": lambda peer, n: peer.frame(Kind.REQUEST, "nobody.there", correlation=n),
    "status pages": lambda peer, n: peer.frame(Kind.REQUEST, "$SYS.status", correlation=n),
    "receipts": lambda peer, n: peer.frame(Kind.PUBLISH, "nobody", correlation=n, flags=Flag.RECEIPT),
    "flushes": lambda peer, n: peer.control(Kind.FLUSH, correlation=n),
    "subscriptions": lambda peer, n: peer.subscription("a", n) + peer.control(Kind.UNSUBSCRIBE, correlation=n),
    "servers": lambda peer, n: (
        peer.control(Kind.SERVE, {"concurrency": 1}, n, "a") + peer.control(Kind.UNSERVE, correlation=n)
    ),
}


@pytest.mark.parametrize(
    ("name", "transport"),
    [*((name, "stream") for name in UNREAD), ("receipts", "seqpacket"), ("refused requests", "tcp")],
)
def test_peer_that_reads_no_answers_is_not_read(name: str, transport: str, common: BrokerProcess) -> None:
    """Its socket fills, and nothing grows but that; when it reads, every answer comes."""
    before = resident_bytes(common)
    with Raw(common.address(transport)) as peer, Raw(common.stream) as other:
        peer.sock.settimeout(FULL)
        sent, number = 0, 1
        try:
            while sent < 64 * MIB:
                frames = [UNREAD[name](peer, odd) for odd in range(number, number + 600, 2)]
                if not peer.send(b"".join(frames)):
                    break
                number += 600
                sent += sum(map(len, frames))
        except TimeoutError:
            sent = -1
        assert sent == -1, "the broker went on reading"
        (queued,) = [
            found["queued_bytes"] for found in other.request("$SYS.status")["peers"] if found["id"] == peer.number
        ]
        assert queued < 8 * MIB
        assert resident_bytes(common) - before < 64 * MIB
        peer.sock.settimeout(PATIENCE)
        last = number - 2
        while True:
            frame = peer.next()
            assert frame is not None
            if frame.correlation == last and frame.kind in (Kind.OK, Kind.ERROR, Kind.RECEIPT, Kind.ANSWER):
                break
    eventually(lambda: status(common)["queues"]["bytes"] < 10_000)


def test_peer_that_is_not_read_is_not_held_to_make_progress() -> None:
    """Its socket is full in the middle of a frame, for longer than an incomplete frame may last."""
    with (
        BrokerProcess("--limit", "incomplete_seconds=1", "--limit", "handshake_seconds=3") as broker,
        Raw(broker.stream) as peer,
        Raw(broker.stream, greet=False) as clock,
    ):
        peer.sock.settimeout(FULL)
        number, left = 1, memoryview(b"")
        try:
            while True:
                frames = [peer.frame(Kind.REQUEST, "nobody", correlation=odd) for odd in range(number, number + 600, 2)]
                number, left = number + 600, memoryview(b"".join(frames))
                while left:
                    left = left[peer.sock.send(left) :]
        except TimeoutError:
            assert left
        # What tells the time is a peer that says nothing.
        assert "handshake_seconds" in clock.expect(Kind.ERROR).body["text"]
        peer.sock.settimeout(PATIENCE)
        assert peer.expect(Kind.ERROR).correlation == 1
        peer.send(bytes(left))
        assert [peer.expect(Kind.ERROR).correlation for _ in range(3, number, 2)] == list(range(3, number, 2))


def test_losses_of_a_peer_that_reads_nothing_do_not_pile_up() -> None:
    """A publisher of files, and a subscriber that carries none and does not even read that they are lost."""
    with (
        BrokerProcess("--limit", "link_queue_bytes=100000") as broker,
        Raw(broker.stream, features=()) as deaf,
        Raw(broker.stream) as peer,
        open_files(1) as fds,
    ):
        many = range(1, 1001, 2)
        for number in many:
            deaf.send(deaf.subscription("files", number))
        assert [deaf.expect(Kind.OK).correlation for _ in many] == list(many)
        messages = 100
        for number in range(messages):
            peer.send(peer.frame(Kind.PUBLISH, "files", fds=1), fds)
            if number % 20 == 0:
                peer.settle()
        peer.settle()
        assert peer.request("$SYS.status")["queues"]["bytes"] < 200_000
        lost = dict.fromkeys(many, 0)
        while min(lost.values()) < messages:
            front = deaf.expect(Kind.DELIVER)
            assert front.body[0] == 0
            lost[front.correlation] += front.body[1]
        assert set(lost.values()) == {messages}
