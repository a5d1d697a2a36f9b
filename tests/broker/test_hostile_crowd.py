"""Fifty misbehaving peers of mixed kinds beside a healthy pair on each transport, and a broker out of descriptors.

The crowd does a bounded amount of work; the pairs must get on meanwhile, and when the crowd is gone nothing of it may
be left: no descriptor, no queued byte, no fault in the log.
"""

from __future__ import annotations

import random
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing

from sockbus.broker.quiet import BURST
from sockbus.protocol.frame import MAX_FRAME, Flag, Kind
from sockbus.trio import connect
from tests.broker.conftest import TRANSPORTS
from tests.broker.healthy import HealthyPair
from tests.broker.outside import cpu_seconds, descriptors, eventually, log_lines, resident_bytes, status
from tests.broker.raw import PATIENCE, Raw, hello, open_files, pieced
from tests.brokers import BrokerProcess, Program

MIB = 1 << 20
# Seconds after which a peer that floods takes a socket for full: it is not to wait for a reader that is its own.
FULL = 0.3

Crowd = Callable[["Stand"], None]


class Stand:
    """Where one of the crowd stands: its connection, its luck, and who tells it to go."""

    def __init__(self, address: str, number: int, over: threading.Event) -> None:
        self.address = address
        self.chance = random.Random(number)
        self.over = over
        self.open: list[Raw] = []

    def peer(self, **options: Any) -> Raw:
        self.open.append(Raw(self.address, **options))
        return self.open[-1]

    def flood(self, peer: Raw, data: bytes, most: int, fds: list[int] | None = None) -> None:
        """Send again and again until so many bytes are sent, the socket is full, or the peer was sent away."""
        peer.sock.settimeout(FULL)
        try:
            for _ in range(0, most, len(data)):
                if self.over.is_set() or not peer.send(data, fds or ()):
                    return
        except TimeoutError:
            return


def sends_garbage(stand: Stand) -> None:
    for greet in (False, True, True):
        peer = stand.peer(greet=greet)
        stand.flood(peer, stand.chance.randbytes(5000), 100_000)


def keeps_half_a_frame(stand: Stand) -> None:
    peer = stand.peer()
    if peer.transport != "seqpacket":
        peer.send(peer.frame(Kind.PUBLISH, "crowd.half", bytes(60_000))[:-1])
    stand.over.wait(PATIENCE)


def says_nothing(stand: Stand) -> None:
    for _ in range(10):
        stand.peer(greet=False)
    stand.over.wait(PATIENCE)


def subscribes_and_never_reads(stand: Stand) -> None:
    peer = stand.peer()
    for number in range(1, 40, 2):
        peer.send(peer.subscription("crowd.>", number, credit=(1 << 40, 1 << 40, 1 << 40), fds="strip"))
    stand.over.wait(PATIENCE)


def publishes_to_those_who_never_read(stand: Stand) -> None:
    peer = stand.peer()
    for number in range(40):
        stand.flood(peer, peer.frame(Kind.PUBLISH, f"crowd.a{number % 3}", bytes(20_000)), 60_000)


def floods_descriptors(stand: Stand) -> None:
    for files in (16, 3, 253):
        peer = stand.peer()
        with open_files(files if peer.carries_fds else 0) as fds:
            stand.flood(peer, peer.frame(Kind.PUBLISH, "crowd.fds", fds=min(files, 16)), 4000, fds)


def asks_and_reads_no_answer(stand: Stand) -> None:
    for topic in ("nobody.there", "$SYS.status"):
        peer = stand.peer()
        frames = [peer.frame(Kind.REQUEST, topic, correlation=number) for number in range(1, 1000, 2)]
        for at in range(0, 500, 50):
            stand.flood(peer, b"".join(frames[at : at + 50]), 3000)


def comes_and_goes(stand: Stand) -> None:
    for number in range(20):
        with Raw(stand.address) as peer:
            for odd in range(1, 21, 2):
                peer.send(peer.subscription(f"*.{number}.>" if odd % 3 else "healthy.*.no", odd, group="g"))
                peer.send(peer.control(Kind.SERVE, {"concurrency": 1}, odd + 100, f"crowd.served.{odd}.*"))
            peer.send(peer.frame(Kind.REQUEST, "crowd.served.1.x", correlation=1001))
            peer.send(peer.frame(Kind.PUBLISH, "crowd.a1", bytes(100)))


def sends_pieces_for_ever(stand: Stand) -> None:
    peer = stand.peer()
    peer.send(peer.frame(Kind.PUBLISH, "crowd.pieces", pieced(64 * MIB, b"x"), 1, flags=Flag.PIECED))
    stand.flood(peer, peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1), 4 * MIB)
    stand.over.wait(PATIENCE)


KILLED = """
import sys, os
from tests.broker.raw import Raw, pieced
from sockbus.protocol.frame import Flag, Kind
peer = Raw(sys.argv[1])
peer.send(peer.frame(Kind.PUBLISH, "crowd.killed", pieced(1 << 20, b"x"), 1, flags=Flag.PIECED))
peer.send(peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1))
if peer.transport != "seqpacket":
    peer.send(peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1)[:30_000])
print("sent", flush=True)
sys.stdin.read()
"""


def is_killed_in_mid_message(stand: Stand) -> None:
    near, far = socket.socketpair()
    with near, far, Program([sys.executable, "-c", KILLED, stand.address], stdin=far.makefile("rb")) as program:
        assert program.out.next() == "sent", program.err.rest()
        program.signal(signal.SIGKILL)
        assert program.code() == -signal.SIGKILL


KINDS: list[Crowd] = [
    sends_garbage,
    keeps_half_a_frame,
    says_nothing,
    subscribes_and_never_reads,
    publishes_to_those_who_never_read,
    floods_descriptors,
    asks_and_reads_no_answer,
    comes_and_goes,
    sends_pieces_for_ever,
]


@pytest.fixture
def beset() -> Iterator[tuple[BrokerProcess, dict[str, HealthyPair]]]:
    """A broker, and a healthy pair on each of its transports."""
    with BrokerProcess() as broker, ExitStack() as stack:
        yield broker, {name: stack.enter_context(HealthyPair(broker.address(name))) for name in TRANSPORTS}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_crowd_harms_nobody_and_leaves_nothing(
    transport: str, beset: tuple[BrokerProcess, dict[str, HealthyPair]]
) -> None:
    broker, pairs = beset
    before, over, faults = descriptors(broker), threading.Event(), []
    address = broker.address(transport)

    def stand(act: Crowd, number: int) -> None:
        place = Stand(address, number, over)
        try:
            act(place)
        except (OSError, AssertionError) as error:
            # Sent away in the middle of something, or not let in: what becomes of the crowd is nobody's business here.
            faults.append(error)
        finally:
            for peer in place.open:
                peer.close()

    kinds = [*KINDS * 5, *[is_killed_in_mid_message] * 5]
    threads = [threading.Thread(target=stand, args=(act, number)) for number, act in enumerate(kinds)]
    assert len(threads) == 50
    for thread in threads:
        thread.start()
    for _ in range(10):
        for pair in pairs.values():
            pair.proceed()
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for pair in pairs.values():
        pair.proceed()
    eventually(lambda: descriptors(broker) == before)
    eventually(lambda: status(broker)["fds"]["held"] <= 1)
    eventually(lambda: status(broker)["queues"]["bytes"] < 10_000)
    page = status(broker)
    assert {peer["name"] for peer in page["peers"]} == {"healthy publisher", "healthy subscriber", None}
    assert len(page["subscriptions"]) == len(page["servers"]) == 3
    assert not [line for line in log_lines(broker) if "was sent away" not in line and "held back" not in line]


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


def markers(reader: Raw) -> list[bytes]:
    """What comes until the last one."""
    came = []
    while not came or came[-1] != b"\x7f":
        came.append(reader.expect(Kind.PUBLISH, Kind.PIECE).content)
    return came


@pytest.mark.parametrize("how", ["closed", "reset", "goodbye", "killed"])
def test_message_that_did_not_come_whole_is_delivered_to_nobody(
    how: str, transport: str, common: BrokerProcess
) -> None:
    address = common.address(transport)
    with Raw(common.stream) as reader:
        reader.subscribe("crowd.killed")
        peers = status(common)["peers"]
        if how == "killed":
            is_killed_in_mid_message(Stand(address, 0, threading.Event()))
        else:
            with Raw(address) as peer:
                peer.send(peer.frame(Kind.PUBLISH, "crowd.killed", pieced(MIB, b"x"), 1, flags=Flag.PIECED))
                peer.send(peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1))
                if how == "goodbye":
                    peer.send(peer.control(Kind.GOODBYE, {"text": "left"}))
                    assert peer.until_end() == []
                elif how == "reset" and transport == "tcp":
                    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: len(status(common)["peers"]) == len(peers))
        reader.send(reader.frame(Kind.PUBLISH, "crowd.killed", b"\x7f"))
        assert markers(reader) == [b"\x7f"]
        assert status(common)["queues"]["bytes"] < 10_000


def test_cancelled_publish_is_delivered_wholly_or_not_at_all(transport: str, common: BrokerProcess) -> None:
    """A publisher whose window is spent on a reader without credit, cancelled in a message of a hundred pieces."""
    large = b"y" * (6 * MIB)
    sizes: list[int] = []

    async def publish() -> None:
        async with connect(common.address(transport)) as bus:
            while True:
                await bus.publish("cancelled", large)

    async def publish_for_a_while() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()

    with Raw(common.stream) as reader:
        reader.subscribe("cancelled", credit=(1, 1 << 40, 1))
        reader.send(reader.frame(Kind.PUBLISH, "cancelled", b"\x01"))
        assert reader.expect(Kind.PUBLISH).content == b"\x01"
        trio.run(publish_for_a_while)
        reader.send(reader.frame(Kind.PUBLISH, "cancelled", b"\x7f"))
        while 1 not in sizes:
            reader.send(reader.control(Kind.CREDIT, [1, 0, 0], correlation=1))
            frame = reader.expect(Kind.PUBLISH)
            came = len(frame.content)
            if frame.flags & Flag.PIECED:
                (total,) = struct.unpack_from(">Q", frame.content)
                came -= 8
                while came < total:
                    came += len(reader.expect(Kind.PIECE).content)
            sizes.append(came)
    assert set(sizes[:-1]) <= {len(large) + 5}
    assert sizes[-1] == 1


@pytest.fixture
def narrow() -> Iterator[BrokerProcess]:
    """A broker with room for a dozen more descriptors."""
    with BrokerProcess() as broker:
        room = len(descriptors(broker)) + 12
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (room, room))
        yield broker


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_broker_without_descriptors_refuses_and_neither_spins_nor_floods_its_log(
    transport: str, narrow: BrokerProcess
) -> None:
    address = narrow.address(transport)
    with ExitStack() as stack:
        near, far = stack.enter_context(Raw(narrow.stream)), stack.enter_context(Raw(narrow.stream))
        far.subscribe("full")
        held = [stack.enter_context(Raw(address, greet=False)) for _ in range(40)]
        used = cpu_seconds(narrow)
        # Ten a second are refused with the number that the broker keeps in reserve; the others wait in the backlog.
        refused = [peer for peer in held if _is_refused(peer)]
        assert 20 <= len(refused) < 40
        # Over about three seconds.
        assert cpu_seconds(narrow) - used < 1.5
        for number in range(20):
            near.send(near.frame(Kind.PUBLISH, "full", bytes([number])))
            assert far.expect(Kind.PUBLISH).content == bytes([number])
        lines = log_lines(narrow)
        assert 1 <= len(lines) <= 2 * BURST
        for peer in held:
            peer.close()
        with Raw(address) as peer:
            peer.settle()
    assert all("cannot be accepted" in line or "reserve" in line for line in lines)


def _is_refused(peer: Raw) -> bool:
    """Whether a connection is refused for want of descriptors; one that was let in is told so by its WELCOME."""
    peer.send(hello(features=()))
    frame = peer.next()
    if frame is None:
        return True
    if frame.kind is Kind.ERROR:
        assert frame.body["code"] == "limit"
        assert "open files" in frame.body["text"]
        return True
    assert frame.kind is Kind.WELCOME
    return False


@pytest.mark.parametrize("transport", ["seqpacket", "stream"])
def test_fds_for_which_the_broker_has_no_room_end_their_sender_alone(transport: str, narrow: BrokerProcess) -> None:
    """MSG_CTRUNC: they are lost for good, and whoever sent them is told."""
    before = descriptors(narrow)
    with (
        Raw(narrow.stream) as near,
        Raw(narrow.stream) as far,
        Raw(narrow.address(transport)) as peer,
        open_files(16) as fds,
    ):
        far.subscribe("full")
        peer.send(peer.frame(Kind.PUBLISH, "full", fds=16), fds)
        (frame,) = [frame for frame in peer.until_end() if frame.kind is Kind.ERROR]
        assert (frame.body["code"], "MSG_CTRUNC" in frame.body["text"]) == ("limit", True)
        near.send(near.frame(Kind.PUBLISH, "full", b"\x01", fds=2), fds[:2])
        assert len(far.expect(Kind.PUBLISH).fds) == 2
    eventually(lambda: descriptors(narrow) == before)
    (line,) = log_lines(narrow)
    assert "MSG_CTRUNC" in line


def test_record_of_many_frames_is_as_good_as_many_records(common: BrokerProcess) -> None:
    """A full record of the smallest frames, on the transport where it is one."""
    with Raw(common.seqpacket) as peer:
        peer.subscribe("records", credit=(1 << 20, 1 << 30, 1))
        frame = peer.frame(Kind.PUBLISH, "records", b"\x01")
        count = MAX_FRAME // len(frame)
        peer.send(frame * count)
        came = 0
        while came < count:
            came += peer.expect(Kind.PUBLISH).content == b"\x01"
        peer.settle()
