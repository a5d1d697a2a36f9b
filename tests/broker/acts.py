"""What the rows of the table of limits do with their number; a function's name says what is counted.

Each returns what became of it: "ok" for a peer that goes on, the code of the ERROR that it is sent away with, "waits".
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import ExitStack

import pytest

from sockbus.broker.parcel import PARCEL_BYTES, SINK_BYTES
from sockbus.protocol.frame import Flag, Kind
from tests.broker.case import padded_hello
from tests.broker.outside import eventually
from tests.broker.raw import PATIENCE, Raw, hello, open_files, pieced, with_headers
from tests.brokers import BrokerProcess, Program

TOPIC = "limited"


def verdict(peer: Raw) -> str:
    """What became of a peer, once the broker has worked through what it sent."""
    peer.send(peer.frame(Kind.REQUEST, "$SYS.status", correlation=4_000_001))
    while (frame := peer.next()) is not None:
        if frame.kind is Kind.ANSWER:
            return "ok"
        if frame.kind is Kind.ERROR and not frame.correlation:
            assert peer.until_end() == []
            return str(frame.body["code"])
        peer.passed.append(frame)
    return "closed"


def first_of(total: int, peer: Raw, kind: Kind = Kind.PUBLISH, number: int = 1) -> bytes:
    return peer.frame(kind, b"" if kind is Kind.REPLY else TOPIC, pieced(total, b"x"), number, flags=Flag.PIECED)


# What each row does with its number. A function's name says what is counted.


def bytes_of_a_publish(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, bytes(10)) * 2 + peer.frame(Kind.PUBLISH, TOPIC, bytes(count)))
        return verdict(peer)


def bytes_of_a_publish_with_receipt(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, bytes(count), 1, flags=Flag.RECEIPT))
        return verdict(peer)


def bytes_of_a_request(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.send(peer.frame(Kind.REQUEST, TOPIC, bytes(count), 1))
        return verdict(peer)


def bytes_of_a_reply(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.serve(TOPIC)
        peer.send(peer.frame(Kind.REQUEST, TOPIC, b"\xc0", 3))
        peer.expect(Kind.REQUEST)
        peer.send(peer.frame(Kind.REPLY, payload=bytes(count), correlation=2))
        if peer.expect(Kind.ANSWER, Kind.ERROR).kind is Kind.ANSWER:
            return "ok"
        return "too-large"


def bytes_of_a_message_in_pieces(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.subscribe(TOPIC, 3)
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, pieced(count, bytes(600)), 1, flags=Flag.PIECED))
        peer.send(peer.frame(Kind.PIECE, payload=bytes(count - 600), correlation=1))
        return verdict(peer)


def bytes_of_headers(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        headers = {"k": "x" * (count - 4)}
        content = with_headers(headers)
        assert content[:2] == count.to_bytes(2, "big")
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, content, flags=Flag.HEADERS))
        return verdict(peer)


def keys_of_headers(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, with_headers({str(i): i for i in range(count)}), flags=Flag.HEADERS))
        return verdict(peer)


def fds_of_a_message(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer, open_files(count) as fds:
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, fds=count), fds)
        return verdict(peer)


def subscriptions(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        for number in range(count):
            peer.send(peer.subscription(TOPIC, 2 * number + 1))
        return verdict(peer)


def subscriptions_come_and_gone(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        for number in range(1, 2 * count, 2):
            peer.send(peer.subscription(TOPIC, number) + peer.control(Kind.UNSUBSCRIBE, correlation=number))
        return verdict(peer)


def servers(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        for number in range(count):
            peer.send(peer.control(Kind.SERVE, {"concurrency": 1}, 2 * number + 1, TOPIC))
        return verdict(peer)


def requests_unanswered(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as server, Raw(broker.stream) as peer:
        server.serve(TOPIC, concurrency=1)
        for number in range(count):
            peer.send(peer.frame(Kind.REQUEST, TOPIC, correlation=2 * number + 1))
        # One more would be the status page's.
        return verdict(peer) if count > 4 else served(peer)


def served(peer: Raw) -> str:
    peer.settle()
    return "ok"


def requests_unanswered_in_pieces(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        for number in range(count):
            peer.send(first_of(100, peer, Kind.REQUEST, 2 * number + 1))
        return verdict(peer) if count > 4 else served(peer)


def concurrency(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.send(peer.control(Kind.SERVE, {"concurrency": count}, 1, TOPIC))
        return verdict(peer)


def connections(address: str, count: int) -> str:
    """Of the last one."""
    with ExitStack() as stack:
        peers = [stack.enter_context(Raw(address, greet=False)) for _ in range(count)]
        for peer in peers:
            peer.send(hello())
            frame = peer.expect(Kind.WELCOME, Kind.ERROR)
            peer.number = frame.body.get("peer", 0)
        if frame.kind is Kind.WELCOME:
            return "ok"
        assert peer.until_end() == []
        assert [verdict(peer) for peer in peers[:-1]] == ["ok"] * (count - 1)
        return str(frame.body["code"])


def connections_of_the_own_user(broker: BrokerProcess, count: int) -> str:
    return connections(broker.stream, count)


def connections_of_a_host(broker: BrokerProcess, count: int) -> str:
    return connections(broker.tcp, count)


STRANGER = """
import os, sys
from tests.broker.acts import connections
os.setgid(65534)
os.setuid(65534)
print(connections(sys.argv[1], int(sys.argv[2])))
"""


def connections_of_another_user(broker: BrokerProcess, count: int) -> str:
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    for path, mode in (
        (broker.directory.parent, 0o711),
        (broker.directory, 0o711),
        (broker.directory / "stream", 0o666),
    ):
        path.chmod(mode)
    with Program([sys.executable, "-c", STRANGER, broker.stream, str(count)]) as stranger:
        return stranger.out.next() or stranger.err.rest().decode()


def silent_peers_before_one_more(broker: BrokerProcess, count: int) -> str:
    with ExitStack() as stack:
        silent = [stack.enter_context(Raw(broker.stream, greet=False)) for _ in range(count)]
        with Raw(broker.stream) as newcomer:
            said = []
            while len(said) < max(0, count - 9):
                said, _, _ = select.select([peer.sock for peer in silent], [], [], PATIENCE)
                assert said, "nobody made way"
            assert verdict(newcomer) == "ok"
        said, _, _ = select.select([peer.sock for peer in silent], [], [], 0)
        gone = [peer for peer in silent if peer.sock in said]
        assert gone == silent[: len(gone)], "the oldest make way"
        assert all(peer.expect(Kind.ERROR).body["code"] == "limit" for peer in gone)
        return f"{len(gone)} made way"


def bytes_of_hello(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream, greet=False) as peer:
        peer.send(padded_hello(count))
        frame = peer.expect(Kind.WELCOME, Kind.ERROR)
        return "ok" if frame.kind is Kind.WELCOME else str(frame.body["code"])


def bytes_of_a_name(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream, greet=False) as peer:
        peer.send(hello(name="n" * count))
        frame = peer.expect(Kind.WELCOME, Kind.ERROR)
        # docs/wire.md, "Handshake": WELCOME, header and all, is at most this long.
        assert len(frame.content) + 26 <= 1024
        return "ok" if frame.kind is Kind.WELCOME else str(frame.body["code"])


def bytes_of_a_frame(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        frame = peer.frame(Kind.PUBLISH, TOPIC, bytes(count - 26 - len(TOPIC)))
        assert len(frame) == count
        peer.send(frame)
        return verdict(peer)


def bytes_of_a_record(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.seqpacket) as peer:
        short = peer.frame(Kind.PUBLISH, TOPIC)
        record = peer.frame(Kind.PUBLISH, TOPIC, bytes(count - 26 - len(TOPIC) - len(short))) + short
        assert len(record) == count
        peer.send(record)
        return verdict(peer)


def tokens_of_a_topic(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        peer.send(peer.frame(Kind.PUBLISH, ".".join("t" * count)))
        return verdict(peer)


def publish_bytes_waiting(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as reader, Raw(broker.stream) as peer:
        reader.subscribe(TOPIC, credit=(1, 1, 1))
        peer.send(peer.frame(Kind.PUBLISH, "nobody", bytes(600)))
        reader.send(reader.frame(Kind.PUBLISH, TOPIC))
        reader.expect(Kind.PUBLISH)
        window = peer.expect(Kind.WINDOW).body[0]
        sent = window - 1000
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, bytes(window - sent + count - 1000 - 26 - len(TOPIC))))
        peer.send(peer.frame(Kind.PUBLISH, TOPIC))
        return verdict(peer)


def publish_fds_waiting(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as reader, Raw(broker.stream) as peer, open_files(count) as fds:
        reader.subscribe(TOPIC, credit=(1, 1, 1))
        reader.send(reader.frame(Kind.PUBLISH, TOPIC))
        reader.expect(Kind.PUBLISH)
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, fds=count), fds)
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, fds=1), fds[:1])
        return verdict(peer)


def request_bytes_waiting(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as server, Raw(broker.stream) as peer:
        server.serve(TOPIC, concurrency=1)
        server.send(server.frame(Kind.REQUEST, TOPIC, correlation=3))
        server.expect(Kind.REQUEST)
        peer.send(peer.frame(Kind.REQUEST, TOPIC, bytes(count - 26 - len(TOPIC)), 1))
        peer.send(peer.frame(Kind.REQUEST, TOPIC, b"\xc0", 3))
        return verdict(peer) if count >= 1000 else served(peer)


def reply_bytes_waiting(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as asking, Raw(broker.stream) as peer:
        peer.serve(TOPIC)
        for number in (1, 3):
            asking.send(asking.frame(Kind.REQUEST, TOPIC, correlation=number))
            peer.expect(Kind.REQUEST)
        peer.send(first_of(count - 26 - 8, peer, Kind.REPLY, 2))
        peer.send(peer.frame(Kind.REPLY, correlation=4))
        return verdict(peer)


def fds_on_their_way_to_a_reader(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as reader, Raw(broker.stream) as peer, open_files(count) as fds:
        reader.subscribe(TOPIC)
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, fds=count), fds)
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, b"\x07", fds=1), fds[:1])
        assert verdict(peer) == "ok"
        # What the broker has sent is there before the reply that it sends afterwards, on another connection or not.
        assert verdict(reader) == "ok"
        waits = [frame.kind for frame in reader.passed].count(Kind.PUBLISH) == 1
        came = [frame for frame in reader.passed if frame.kind is Kind.PUBLISH]
        reader.send(reader.control(Kind.RECEIVED, count))
        if waits:
            came.append(reader.expect(Kind.PUBLISH))
        assert [(len(frame.fds), frame.content) for frame in came] == [(count, b"\xc0"), (1, b"\x07")]
        return "waits" if waits else "ok"


def bytes_left_behind(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as reader:
        reader.subscribe(TOPIC, credit=(1, 1, 1))
        reader.send(reader.frame(Kind.PUBLISH, TOPIC))
        reader.expect(Kind.PUBLISH)
        with Raw(broker.stream) as peer:
            # What it takes to keep a message counts too.
            peer.send(peer.frame(Kind.PUBLISH, TOPIC, bytes(count - PARCEL_BYTES - SINK_BYTES - 26 - len(TOPIC))))
            assert verdict(peer) == "ok"
        eventually(lambda: len(reader.request("$SYS.status")["peers"]) == 1)
        with Raw(broker.stream) as peer:
            if peer.welcome["window"][0]:
                return "ok"
            reader.send(reader.control(Kind.CREDIT, [1, 26 + len(TOPIC) + 1, 0], correlation=1))
            # With what was left behind gone, the window is told.
            assert peer.expect(Kind.WINDOW).body[0] > 0
            return "waits"


def retained_topics(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        answers = [keep(peer, f"limited.{number}", b"\x01") for number in range(count)]
        return _and_cleared(peer, answers)


def bytes_retained(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        first, second = "limited.a", "limited.b"
        size = 26 + len(first)
        answers = [keep(peer, first, bytes(400 - size)), keep(peer, second, bytes(count - 400 - size))]
        return _and_cleared(peer, answers)


def bytes_retained_in_place_of_others(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        size = 26 + len(TOPIC)
        answers = [keep(peer, TOPIC, bytes(900 - size)), keep(peer, TOPIC, bytes(count - size))]
        return _and_cleared(peer, answers)


def fds_retained(broker: BrokerProcess, count: int) -> str:
    with Raw(broker.stream) as peer:
        answers = [keep(peer, "limited.a", b"\x01", 2), keep(peer, "limited.b", b"\x01", count - 2)]
        return _and_cleared(peer, answers)


def keep(peer: Raw, topic: str, payload: bytes, fds: int = 0) -> str:
    """Publish something to be kept: "ok", or the code of the ERROR that says that it is not."""
    number = 4_000_101 + 2 * len(peer.passed)
    with open_files(fds) as files:
        peer.send(peer.frame(Kind.PUBLISH, topic, payload, number, flags=Flag.RETAIN, fds=fds), files)
    answer = peer.expect(Kind.OK, Kind.ERROR)
    assert answer.correlation == number, answer.body
    return "ok" if answer.kind is Kind.OK else str(answer.body["code"])


def _and_cleared(peer: Raw, answers: list[str]) -> str:
    """The last answer, where those before are "ok", and the link goes on; clears what was kept."""
    assert set(answers[:-1]) <= {"ok"}
    for row in peer.request("$SYS.retained"):
        assert keep(peer, row["topic"], b"\xc0") == "ok"
    assert peer.request("$SYS.retained", number=777_779) == []
    assert verdict(peer) == "ok"
    return answers[-1]
