"""Kept values under those who make trouble: readers that do not read, publishers that replace, fds that pile up."""

from __future__ import annotations

import os

import pytest

from sockbus.broker.config import Limits
from sockbus.broker.group import Group
from sockbus.broker.hub import Hub
from sockbus.broker.lossy import Lossy
from sockbus.broker.parcel import Gap
from sockbus.broker.presence import Presence
from sockbus.broker.sink import Sink
from sockbus.broker.subscription import Subscription
from sockbus.fd import SharedFds
from sockbus.message import Peer
from sockbus.protocol.frame import Flag, Kind, encode
from sockbus.protocol.overflow import Overflow
from tests.broker.acts import keep
from tests.broker.links import Publisher, Receiver
from tests.broker.outside import descriptors, eventually, resident_bytes, status
from tests.broker.raw import Raw, open_files, pieced
from tests.brokers import BrokerProcess

ONE = (1, 1 << 20, 64)


def retained_publish(peer: Raw, topic: str, payload: bytes, number: int, flags: int = 0, fds: int = 0) -> bytes:
    return peer.frame(Kind.PUBLISH, topic, payload, number, flags=Flag.RETAIN | flags, fds=fds)


def test_front_of_a_kept_value_says_so_and_that_of_a_live_one_does_not(common: BrokerProcess) -> None:
    with Raw(common.stream) as peer, Raw(common.stream) as reader:
        assert keep(peer, "kept.front", b"\x07") == "ok"
        reader.subscribe("kept.front")
        front = reader.expect(Kind.DELIVER)
        assert (front.flags, front.body) == (Flag.RETAIN, [1, 0])
        frame = reader.expect(Kind.PUBLISH)
        assert (frame.content, frame.flags, frame.sender) == (b"\x07", Flag.RETAIN, peer.number)
        assert keep(peer, "kept.front", b"\x08") == "ok"
        assert reader.expect(Kind.DELIVER).flags == 0
        peer.close()
        # It is not gone before its value is.
        with Raw(common.stream) as other:
            assert keep(other, "kept.front", b"\xc0") == "ok"
        assert reader.expect(Kind.GONE).correlation == peer.number


def test_answer_comes_once_by_receipt_or_ok_or_error() -> None:
    with BrokerProcess("--limit", "retained=1") as broker, Raw(broker.stream) as peer:
        peer.subscribe("a")
        peer.send(retained_publish(peer, "a", b"\x01", 11))
        peer.send(retained_publish(peer, "a", b"\x02", 13, Flag.RECEIPT))
        peer.send(retained_publish(peer, "b", b"\x03", 15))
        peer.send(retained_publish(peer, "b", b"\x03", 17, Flag.RECEIPT))
        peer.send(retained_publish(peer, "b", pieced(6, b"abc"), 19, Flag.PIECED))
        peer.send(peer.frame(Kind.PIECE, payload=b"def", correlation=19))
        peer.send(peer.control(Kind.GOODBYE, {"text": "left"}))
        came = peer.until_end()
        answers = [(f.kind.name, f.correlation) for f in came if f.kind in (Kind.OK, Kind.RECEIPT, Kind.ERROR)]
        assert answers == [("OK", 11), ("RECEIPT", 13), ("ERROR", 15), ("ERROR", 17), ("ERROR", 19)]
        assert [frame.content for frame in came if frame.kind is Kind.PUBLISH] == [b"\x01", b"\x02"]


def test_refused_values_give_their_window_and_their_fds_back() -> None:
    limits = ["--limit", "retained=0", "--limit", "window_bytes=4000", "--limit", "link_fds=4"]
    with BrokerProcess(*limits) as broker, Raw(broker.stream) as peer:
        before = descriptors(broker)
        for number in range(1, 401, 2):
            with open_files(2) as fds:
                peer.send(retained_publish(peer, "a", bytes(1000), number, fds=2), fds)
            assert peer.expect(Kind.ERROR).body["code"] == "limit"
            peer.settle()
        eventually(lambda: descriptors(broker) == before)


def test_value_without_end_of_its_pieces_is_not_kept(common: BrokerProcess) -> None:
    with Raw(common.stream) as peer:
        peer.send(retained_publish(peer, "kept.half", pieced(6, b"abc"), 1, Flag.PIECED))
    with Raw(common.stream) as peer:
        assert [row for row in peer.request("$SYS.retained") if row["topic"] == "kept.half"] == []


@pytest.mark.parametrize("limit", [{"retained_bytes": 1000}, {"retained_fds": 10}, {"retained": 5}])
async def test_old_values_that_nobody_takes_are_bounded_like_the_new(limit: dict[str, int]) -> None:
    """By bytes, by fds or by number: of those of 200 bytes and 2 fds there is room for 5."""
    hub = Hub(Limits(total_fds=1000, **limit))
    store, peer = hub.retained, Presence(None, Peer(7, None, "stream", None, None, None))
    peer.keep()
    sinks: list[Subscription] = []
    fds: list[SharedFds] = []
    for turn in range(50):
        for topic in range(4):
            fds.append(SharedFds(tuple(os.memfd_create("kept") for _ in range(2)), hub.fds_released))
            hub.held_fds += 2
            frame = encode(Kind.PUBLISH, payload=bytes([turn])).ljust(200, b".")
            store.keep(f"s.{topic}", (frame,), 200, fds[-1], peer, clears=False)
            fds[-1].release()
        link = Receiver()
        link.room = 0
        sinks.append(Subscription(link, 1, "s.*", (9, 9999, 9), strip=False))
        store.show(sinks[-1], "s.*")
        assert (store.bytes, store.fds) == (800, 8)
        assert hub.held_fds == store.held_fds == 8 + 2 * store.old_count
        assert store.old_count == min(4 * turn, 5)
        assert sum(len(shared.fds) for shared in fds) == hub.held_fds
        assert [sink.waiting_messages for sink in sinks] == [4] * (turn + 1)
        if "retained" in limit:
            # Nor is there any number of those that were given up.
            assert sum(len(sink.waiting) for sink in sinks) <= turn + 4 + 5 + 5 + len(store._readers)
    for sink in sinks:
        assert isinstance(sink.link, Receiver)
        sink.link.room = 99
        sink.progress()
        assert (len(sink.link.fds) + sink.lost, len(sink.waiting)) == (4, 0)
    # The newest are there, of those before as many as the limits let stand, and of the first none.
    assert [sink.lost for sink in sinks] == [4] * 47 + [3, 0, 0]
    assert store._given_up == 0
    for topic in range(4):
        store.keep(f"s.{topic}", (), 0, None, peer, clears=True)
    assert (store.bytes, store.fds, store.held_fds, hub.held_fds, store.values) == (0, 0, 0, 0, {})
    assert (store.old_count, store.old_bytes) == (0, 0)
    assert peer._remains == 1


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "group"])
@pytest.mark.parametrize(
    ("given_up", "story"),
    [
        ({1, 2, 4}, [(0, 0), (3, 2), (5, 1), (6, 0), (-1, 0)]),
        ({0, 1, 5}, [(2, 2), (3, 0), (4, 0), (6, 1), (-1, 0)]),
        ({0, 1, 2, 3, 4, 5}, [(6, 6), (-1, 0)]),
    ],
)
async def test_places_of_what_was_given_up_are_merged_and_stay_where_they_are(
    given_up: set[int], story: list[tuple[int, int]], overflow: str
) -> None:
    hub = Hub(Limits())
    store, publisher, link = hub.retained, Publisher(), Receiver()
    for number in range(6):
        store.keep(f"s.{number}", publisher.message().frames, 100, None, publisher.presence, clears=False)
    link.room = 0
    member: Subscription = (
        Lossy(link, 1, "s.*", (9, 9999, 9), strip=False, overflow=Overflow.DROP_OLDEST)
        if overflow == "drop_oldest"
        else Subscription(link, 1, "s.*", (9, 9999, 9), strip=False)
    )
    sink: Sink = member
    if overflow == "group":
        sink = group = Group("g", "s.*")
        group.members.append(member)
    store.show(sink, "s.*")
    sink.progress()
    live = publisher.message()
    live.pending = 1
    sink.offer(live)
    for kept in [kept for number, kept in enumerate(store.values.values()) if number in given_up]:
        kept.give_up()
    for _ in range(2):
        assert sink.merge_given_up() is (len(given_up) < 6)
        assert sink.waiting_messages == 7
        gaps = [parcel.count for parcel in sink.waiting if isinstance(parcel, Gap)]
        assert sum(gaps) == len(given_up)
        assert len(gaps) == sum(lost > 0 for _, lost in story)
    link.feed()
    assert (link.story, member.lost, sink.waiting_messages) == (story, len(given_up), 0)
    assert not sink.merge_given_up()
    live.finish()
    assert publisher.done == [live]


def test_what_was_given_up_is_counted_where_it_is_missing() -> None:
    with (
        BrokerProcess("--limit", "retained_bytes=1000") as broker,
        Raw(broker.stream) as peer,
        Raw(broker.stream) as reader,
    ):
        for topic in range(4):
            assert keep(peer, f"s.{topic}", bytes([topic]) * 200) == "ok"
        reader.subscribe("s.*", 1, ONE)
        assert reader.expect(Kind.PUBLISH).topic == "s.0"
        # Its others become old one after the other; there is room for four of those, so the next four displace them.
        reader.subscribe("s.*", 3, ONE)
        assert reader.expect(Kind.PUBLISH).topic == "s.0"
        for topic in range(4):
            assert keep(peer, f"s.{topic}", bytes([topic + 4]) * 200) == "ok"
        reader.subscribe("s.*", 5, ONE)
        assert reader.expect(Kind.PUBLISH).content == bytes([4]) * 200
        for topic in range(4):
            assert keep(peer, f"s.{topic}", bytes([topic + 8]) * 200) == "ok"
        got: list[int] = []
        lost = 0
        # Two live ones for each topic stand behind the snapshot.
        while len(got) + lost < 3 + 8:
            reader.send(reader.control(Kind.CREDIT, [1, 0, 0], correlation=1))
            front = reader.expect(Kind.DELIVER)
            count, gap = front.body
            lost += gap
            if count:
                got.append(reader.expect(Kind.PUBLISH).content[0])
        assert got[-8:] == [4, 5, 6, 7, 8, 9, 10, 11]
        assert 0 < lost <= 3
        assert got[:-8] == [1, 2, 3][lost:]


def test_kept_fds_do_not_make_a_broker_full() -> None:
    limits = ["--limit", "total_fds=20", "--limit", "retained_fds=40"]
    with BrokerProcess(*limits) as broker, Raw(broker.stream) as peer:
        for number in range(4):
            assert keep(peer, f"f.{number}", b"\x01", fds=10) == "ok"
        found = status(broker)
        assert (found["fds"]["held"], found["retained"]["fds"]) == (40, 40)
        # A broker that is full reads a publisher ten times a second.
        began = os.times().elapsed
        for number in range(1, 101, 2):
            peer.send(peer.frame(Kind.PUBLISH, "x", b"\x01"))
            peer.settle(number + 1000)
        assert os.times().elapsed - began < 2.0


def test_values_that_are_replaced_leave_no_memory_behind() -> None:
    with BrokerProcess() as broker, Raw(broker.stream) as peer:

        def replace(rounds: int) -> None:
            for number in range(1, 2 * rounds, 2):
                topic = f"s.{number % 7}"
                peer.send(retained_publish(peer, topic, bytes(60_000), number))
                assert peer.expect(Kind.OK).correlation == number
            peer.passed.clear()

        replace(200)
        size = resident_bytes(broker)
        replace(2000)
        # 2,000 values are 120 MB.
        assert resident_bytes(broker) < size + (8 << 20)
        assert status(broker)["retained"]["topics"] == 7
