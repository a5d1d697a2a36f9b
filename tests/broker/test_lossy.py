"""What a subscription that drops gives, keeps and counts, over a link that only writes down what it is given."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.broker.held import OVERHEAD
from sockbus.broker.lossy import Lossy
from sockbus.broker.parcel import Tally
from sockbus.protocol.inbox import topics
from sockbus.protocol.overflow import Overflow
from tests.broker.links import Files, Publisher, Receiver

ANY = 1 << 40
DROPPING = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST]
POLICIES = [*DROPPING, Overflow.DISCONNECT]


def lossy(link: Receiver, overflow: Overflow, credit: Sequence[int] = (3, ANY, ANY), *, strip: bool = False) -> Lossy:
    messages, size, fds = credit
    return Lossy(link, 1, "a", (messages, size, fds), strip=strip, overflow=overflow)


def take_all(link: Receiver, sink: Lossy) -> list[tuple[int, int]]:
    """Give credit back until nothing more comes; the story of it all."""
    while sink.outstanding:
        sink.give_back(sink.outstanding, sink.capacity_bytes - sink.bytes, sink.capacity_fds - sink.fds)
        sink.progress()
    return link.story


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def link() -> Receiver:
    return Receiver()


class TestPolicies:
    """Capacity 3: three are delivered on credit, and of the rest three may wait."""

    @pytest.mark.parametrize("overflow", POLICIES)
    def test_nothing_is_lost_below_capacity(self, publisher: Publisher, link: Receiver, overflow: Overflow) -> None:
        sink = lossy(link, overflow)
        for topic in "abcdef":
            sink.offer(publisher.message(topic=topic))
        assert link.got == [0, 1, 2]
        assert take_all(link, sink) == [*((number, 0) for number in range(6)), (-1, 0)]
        assert (sink.lost, publisher.kept, link.hub.queued_bytes) == (0, 0, 0)

    @pytest.mark.parametrize("runs", [[20], [1] * 20, [3, 17], [4, 16], [2, 9, 9], [7, 13]])
    @pytest.mark.parametrize(
        ("overflow", "story"),
        [
            (Overflow.DROP_OLDEST, [(0, 0), (1, 0), (2, 0), (17, 14), (18, 0), (19, 0), (-1, 0)]),
            (Overflow.DROP_NEWEST, [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (-1, 14)]),
            (Overflow.LATEST, [(0, 0), (1, 0), (2, 0), (19, 16), (-1, 0)]),
        ],
    )
    def test_what_is_dropped_is_told_where_it_was(
        self, publisher: Publisher, link: Receiver, overflow: Overflow, story: list[tuple[int, int]], runs: list[int]
    ) -> None:
        sink = lossy(link, overflow)
        for count in runs:
            sink.offer(publisher.run(count))
        assert sink.waiting_messages == len(story) - 4
        assert sink.lost == sum(lost for _, lost in story)
        assert take_all(link, sink) == story
        assert (publisher.kept, link.hub.queued_bytes) == (0, 0)

    def test_latest_keeps_the_newest_of_each_topic_at_the_tail(self, publisher: Publisher, link: Receiver) -> None:
        sink = lossy(link, Overflow.LATEST)
        sink.offer(publisher.run(3))
        for topic in "abacb":
            sink.offer(publisher.message(topic=topic))
        assert sink.waiting_messages == 3
        # 3 and 4 were replaced; then d, beyond capacity, evicts the oldest, which is 5.
        sink.offer(publisher.message(topic="d"))
        assert take_all(link, sink)[3:] == [(6, 3), (7, 0), (8, 0), (-1, 0)]
        assert sink.lost == 3

    def test_latest_looks_at_each_topic_of_a_run(self, publisher: Publisher, link: Receiver) -> None:
        sink = lossy(link, Overflow.LATEST)
        sink.offer(publisher.run(3))
        sink.offer(publisher.run(9, topics=["a", "bb", "c"]))
        sink.offer(publisher.run(2, topics=["bb"]))
        assert take_all(link, sink)[3:] == [(9, 6), (11, 1), (13, 1), (-1, 0)]

    def test_latest_topics_of_a_run_are_looked_up_once_for_all(
        self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[int] = []

        def counted(buffer: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
            looked.append(end)
            return topics(buffer, start, end)

        monkeypatch.setattr("sockbus.broker.parcel.topics", counted)
        links = [Receiver() for _ in range(5)]
        sinks = [lossy(link, Overflow.LATEST, (1 + credit, ANY, ANY)) for credit, link in enumerate(links)]
        parcel = publisher.run(8, topics=["a", "bb", "c"])
        for sink in sinks:
            sink.offer(parcel)
        assert looked == [parcel.cost]
        # Of a run that was taken in part only the rest, and of that as much as there is room for.
        assert [take_all(link, sink) for link, sink in zip(links, sinks, strict=True)] == [
            [(0, 0), (7, 6), (-1, 0)],
            [(0, 0), (1, 0), (6, 4), (7, 0), (-1, 0)],
            [(0, 0), (1, 0), (2, 0), (5, 2), (6, 0), (7, 0), (-1, 0)],
            [*((number, 0) for number in range(4)), (5, 1), (6, 0), (7, 0), (-1, 0)],
            [*((number, 0) for number in range(8)), (-1, 0)],
        ]

    def test_latest_of_more_topics_than_it_keeps_are_the_last(self, publisher: Publisher, link: Receiver) -> None:
        sink = lossy(link, Overflow.LATEST)
        sink.offer(publisher.run(3))
        for topic in "xib":
            sink.offer(publisher.message(topic=topic))
        sink.offer(publisher.run(9, topics="abcdefghi"))
        assert (sink.waiting_messages, sink.lost) == (3, 9)
        assert take_all(link, sink)[3:] == [(12, 9), (13, 0), (14, 0), (-1, 0)]
        assert link.hub.queued_bytes == 0

    @pytest.mark.parametrize("last", [1, 5])
    def test_disconnect_ends_at_the_first_that_does_not_fit(
        self, publisher: Publisher, link: Receiver, last: int
    ) -> None:
        sink = lossy(link, Overflow.DISCONNECT)
        sink.offer(publisher.run(6))
        assert link.ends == []
        sink.offer(publisher.run(last))
        assert link.story == [(0, 0), (1, 0), (2, 0), (-1, 3 + last)]
        (text,) = link.ends
        assert "'a'" in text
        assert f"3 messages outstanding and {3 + last} more" in text
        tally = Tally(publisher, 1, 1)
        sink.offer(publisher.message(tally=tally))
        assert (sink.ended, sink.lost, tally.dropped) == (True, 3 + last, 1)
        assert (link.ends, publisher.kept, link.hub.queued_bytes) == ([text], 0, 0)

    @pytest.mark.parametrize("overflow", POLICIES)
    def test_publisher_gets_its_window_back_at_once(
        self, publisher: Publisher, link: Receiver, overflow: Overflow
    ) -> None:
        sink = lossy(link, overflow)
        parcels = [publisher.run(2), publisher.run(3), publisher.message(), publisher.message(topic="b")]
        for parcel in parcels:
            parcel.pending = 1
            sink.offer(parcel)
            parcel.finish()
        assert publisher.done == parcels


class TestBounds:
    """Bytes, descriptors, and what the link may keep."""

    @pytest.mark.parametrize("cost", [299, 300, 301])
    @pytest.mark.parametrize("overflow", DROPPING)
    def test_bytes_are_kept_to(self, publisher: Publisher, link: Receiver, overflow: Overflow, cost: int) -> None:
        sink = lossy(link, overflow, (ANY, 400, ANY))
        sink.offer(publisher.message(400))
        sink.offer(publisher.message(100, topic="a"))
        sink.offer(publisher.message(cost, topic="b"))
        assert sink.waiting_messages == (2 if cost <= 300 else 1)
        kept = 2 if overflow is not Overflow.DROP_NEWEST else 1
        assert take_all(link, sink)[-2][0] == (2 if cost <= 300 else kept)

    @pytest.mark.parametrize("overflow", DROPPING)
    @pytest.mark.parametrize("sizes", [[40] * 50, [40, 60, 80] * 10, [90, 40, 40]])
    def test_runs_are_cut_by_bytes(
        self, publisher: Publisher, link: Receiver, overflow: Overflow, sizes: list[int]
    ) -> None:
        sink = lossy(link, overflow, (ANY, 200, ANY))
        sink.offer(publisher.message(200))
        for size in sizes:
            sink.offer(publisher.run(7, size))
            assert sink._queue.bytes <= 200
        story = take_all(link, sink)
        assert sum(lost for _, lost in story) + len(story) - 1 == 1 + 7 * len(sizes)

    @pytest.mark.parametrize("overflow", POLICIES)
    def test_nothing_is_too_large_for_an_empty_queue(
        self, publisher: Publisher, link: Receiver, overflow: Overflow
    ) -> None:
        sink = lossy(link, overflow, (ANY, 100, 1))
        sink.offer(publisher.message(100, fds=1))
        sink.offer(publisher.message(5000, fds=16))
        assert take_all(link, sink) == [(0, 0), (1, 0), (-1, 0)]

    @pytest.mark.parametrize(
        ("overflow", "numbers"),
        [(Overflow.DROP_OLDEST, [3, 4]), (Overflow.DROP_NEWEST, [1, 2]), (Overflow.LATEST, [3, 4])],
    )
    def test_descriptors_are_kept_to_and_let_go(
        self, publisher: Publisher, link: Receiver, overflow: Overflow, numbers: list[int]
    ) -> None:
        sink = lossy(link, overflow, (ANY, ANY, 4))
        parcels = [publisher.message(fds=4)] + [publisher.message(fds=2, topic=topic) for topic in "abcd"]
        for parcel in parcels:
            sink.offer(parcel)
        assert [parcel.fds.holders - 1 for parcel in parcels if isinstance(parcel.fds, Files)] == [
            0, *(int(number in numbers) for number in range(1, 5)),
        ]  # fmt: skip
        assert [number for number, _ in take_all(link, sink)[1:-1]] == numbers
        assert all(parcel.fds.holders == 1 for parcel in parcels if isinstance(parcel.fds, Files))
        assert link.holdings.fds == 0

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("overflow", POLICIES)
    def test_nothing_joins_more_descriptors_than_there_is_capacity_for(
        self, publisher: Publisher, link: Receiver, overflow: Overflow, count: int
    ) -> None:
        sink = lossy(link, overflow, (9, ANY, 4))
        sink.offer(publisher.message(fds=4))
        sink.offer(publisher.message(fds=5))
        sink.offer(publisher.run(count, topics="ab"))
        kept = {Overflow.DROP_NEWEST: (1, 5), Overflow.DISCONNECT: (0, 0)}
        assert (sink.waiting_messages, link.holdings.fds) == kept.get(overflow, (count, 0))
        assert sink.lost == 1 + count - sink.waiting_messages

    @pytest.mark.parametrize("overflow", DROPPING)
    def test_link_keeps_no_more_than_it_may(self, publisher: Publisher, overflow: Overflow) -> None:
        link = Receiver(queue_bytes=1000)
        sinks = [lossy(link, overflow, (1, ANY, ANY)) for _ in range(8)]
        for _ in range(3):
            for sink in sinks:
                sink.capacity_messages = 1 << 30
                sink.offer(publisher.message(200))
        assert 1000 <= link.hub.queued_bytes < 1000 + 200 + OVERHEAD
        assert sum(sink.lost + sink.waiting_messages for sink in sinks) == 16
        for sink in sinks:
            sink.close()
        assert (link.hub.queued_bytes, publisher.kept) == (0, 0)

    @pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.LATEST])
    @pytest.mark.parametrize(("queue_bytes", "fds"), [(ANY, 4), (ANY, 5), (4 * (200 + OVERHEAD) + 1, 0)])
    def test_nothing_is_dropped_for_a_message_that_finds_no_room_all_the_same(
        self, publisher: Publisher, overflow: Overflow, queue_bytes: int, fds: int
    ) -> None:
        """Another subscription of the link has what it may keep: fds, or bytes."""
        link = Receiver(queue_bytes=queue_bytes, link_fds=4)
        sink, other = lossy(link, overflow, (4, ANY, ANY)), lossy(link, overflow)
        sink.messages = other.messages = 0
        for topic in "abcd":
            sink.offer(publisher.message(200, topic=topic))
        other.offer(publisher.message(3000, fds=fds))
        tally = Tally(publisher, 1, 1)
        sink.offer(publisher.message(200, fds=int(fds > 0), tally=tally, topic="a"))
        assert (sink.waiting_messages, sink.lost, other.waiting_messages, tally.dropped) == (4, 1, 1, 1)
        other.close()
        assert take_all(link, sink) == [(0, 0), (1, 0), (2, 0), (3, 0), (-1, 1)]
        assert (link.holdings.fds, link.hub.queued_bytes, publisher.kept) == (0, 0, 0)

    @pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.LATEST])
    def test_only_messages_with_fds_make_room_for_fds(self, publisher: Publisher, overflow: Overflow) -> None:
        link = Receiver(link_fds=4)
        sink, other = lossy(link, overflow, (9, ANY, ANY)), lossy(link, overflow, (9, ANY, ANY))
        sink.messages = other.messages = 0
        other.offer(publisher.message(fds=2))
        for number, fds in enumerate([0, 1, 0, 1, 0, 3]):
            sink.offer(publisher.message(fds=fds, topic=str(number)))
        assert (sink.waiting_messages, sink.lost, link.holdings.fds) == (5, 1, 2 + 1 + 3)
        sink.messages = 9
        sink.progress()
        assert link.story == [(1, 0), (3, 1), (4, 0), (5, 0), (6, 0), (-1, 0)]
        other.close()
        assert (link.holdings.fds, link.hub.queued_bytes, sink._queue._charged, len(sink._queue._with_fds)) == (
            0,
            0,
            0,
            0,
        )

    def test_messages_that_are_gone_take_no_room_on_the_link(self, publisher: Publisher) -> None:
        """Of each run all but the last is dropped; until somebody tidies up, its bytes are all there."""
        link = Receiver(queue_bytes=20_000)
        sinks = [lossy(link, Overflow.DROP_OLDEST, (1, ANY, ANY)) for _ in range(8)]
        for sink in sinks:
            sink.messages = 0
            sink.offer(publisher.run(99))
        assert [(sink.waiting_messages, sink.lost) for sink in sinks] == [(1, 98)] * 8
        assert link.holdings.bytes < 20_000 + 9900 + OVERHEAD

    def test_pieces_count_for_the_link_with_what_is_in_front_of_them(
        self, publisher: Publisher, link: Receiver
    ) -> None:
        sink = lossy(link, Overflow.DROP_OLDEST, (1, ANY, ANY))
        sink.offer(publisher.message())
        parcel = publisher.message(100, pieces=17)
        sink.offer(parcel)
        assert link.holdings.bytes == sum(map(len, parcel.frames)) + OVERHEAD
        sink.offer(publisher.message(100))
        assert link.holdings.bytes == 100 + OVERHEAD
        sink.close()
        assert link.holdings.bytes == 0

    @pytest.mark.parametrize("overflow", DROPPING)
    def test_link_keeps_no_more_descriptors_than_it_may(self, publisher: Publisher, overflow: Overflow) -> None:
        link = Receiver(link_fds=4)
        sinks = [lossy(link, overflow, (1, ANY, ANY)) for _ in range(8)]
        for _ in range(2):
            for sink in sinks:
                sink.offer(publisher.message(fds=2))
        assert link.holdings.fds == 4

    @pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
    def test_slice_of_a_run_is_not_kept_for_one_message(
        self, publisher: Publisher, link: Receiver, overflow: Overflow
    ) -> None:
        sink = lossy(link, overflow, (1, ANY, ANY))
        sink.offer(publisher.run(600))
        for untidy in link.hub.untidy:
            untidy.tidy()
        (held,) = sink._queue.entries.values()
        assert len(held.frames[0]) == 100
        assert link.hub.queued_bytes == 100 + OVERHEAD
        assert take_all(link, sink)[:1] == [(0, 0)]


class TestTelling:
    """Losses with nothing behind them, and descriptors that a link cannot carry."""

    def test_losses_at_the_end_are_told_when_there_is_room(self, publisher: Publisher, link: Receiver) -> None:
        sink = lossy(link, Overflow.DROP_NEWEST)
        sink.offer(publisher.run(10))
        link.room = 1
        sink.give_back(3, 300, 0)
        sink.progress()
        assert link.story[-1] == (-1, 0)
        link.feed()
        assert link.story == [*((number, 0) for number in range(6)), (-1, 4)]

    def test_more_losses_than_a_front_can_say(self, publisher: Publisher, link: Receiver) -> None:
        sink = lossy(link, Overflow.DROP_OLDEST)
        sink._arrived = sink._next = 0
        sink.offer(publisher.run(6))
        sink._arrived += 5 << 32
        for held in sink._queue.entries.values():
            held.end += 5 << 32
        assert sum(lost for _, lost in take_all(link, sink)) == 5 << 32

    @pytest.mark.parametrize("overflow", DROPPING)
    def test_rejected_message_has_its_place_among_what_waits(self, publisher: Publisher, overflow: Overflow) -> None:
        link = Receiver(carries_fds=False)
        sink = lossy(link, overflow)
        sink.offer(publisher.message(fds=1))
        assert link.story == [(-1, 1)]
        sink.offer(publisher.run(3))
        sink.offer(publisher.message(topic="a"))
        tally = Tally(publisher, 1, 1)
        sink.offer(publisher.message(fds=1, tally=tally))
        sink.offer(publisher.message(topic="b"))
        sink.offer(publisher.message(fds=1))
        assert take_all(link, sink) == [(1, 1), (2, 0), (3, 0), (4, 0), (6, 1), (-1, 1)]
        assert (publisher.told, tally.without_fds, sink.lost) == ([tally], 1, 3)

    def test_stripped_message_keeps_no_descriptors(self, publisher: Publisher) -> None:
        link = Receiver(carries_fds=False)
        sink = lossy(link, Overflow.DROP_OLDEST, (1, ANY, 1), strip=True)
        for _ in range(3):
            sink.offer(publisher.message(fds=9))
        assert (link.holdings.fds, sink.waiting_messages) == (0, 1)
        assert take_all(link, sink) == [(0, 0), (2, 1), (-1, 0)]

    @pytest.mark.parametrize(
        ("overflow", "counts"),
        [
            (Overflow.DROP_OLDEST, [(1, 0), (0, 1), (0, 0)]),
            (Overflow.DROP_NEWEST, [(1, 0), (0, 0), (0, 1)]),
            (Overflow.LATEST, [(1, 0), (0, 1), (0, 0)]),
            (Overflow.DISCONNECT, [(1, 0), (0, 1), (0, 1)]),
        ],
    )
    def test_receipt_comes_when_the_message_is_delivered_or_dropped(
        self, publisher: Publisher, link: Receiver, overflow: Overflow, counts: list[tuple[int, int]]
    ) -> None:
        sink = lossy(link, overflow, (1, ANY, ANY))
        tallies = [Tally(publisher, number, 1) for number in range(3)]
        for tally in tallies:
            sink.offer(publisher.message(tally=tally))
        assert [(tally.delivered, tally.dropped) for tally in tallies] == counts
        take_all(link, sink)
        assert sorted(tally.number for tally in publisher.told) == [0, 1, 2]

    def test_end_drops_what_waits_and_says_so(self, publisher: Publisher, link: Receiver) -> None:
        sink, tally = lossy(link, Overflow.DROP_OLDEST), Tally(publisher, 1, 1)
        sink.offer(publisher.run(4))
        sink.offer(publisher.message(tally=tally))
        sink.close()
        assert (publisher.told, tally.dropped, publisher.kept, link.hub.queued_bytes) == ([tally], 1, 0, 0)


class Model:
    """What a subscription should do, one message at a time."""

    def __init__(self, overflow: Overflow, capacity: int, capacity_bytes: int) -> None:
        self.overflow, self.capacity, self.capacity_bytes = overflow, capacity, capacity_bytes
        self.credit, self.credit_bytes = capacity, capacity_bytes
        self.waiting: collections.deque[tuple[int, int, str]] = collections.deque()
        self.got: list[int] = []
        self.ended = False

    def offer(self, number: int, size: int, topic: str) -> None:
        if self.ended:
            return
        self.waiting.append((number, size, topic))
        self.progress()
        if not self.waiting:
            return
        *before, new = self.waiting
        if self.overflow is Overflow.LATEST:
            before = [each for each in before if each[2] != topic]
        while before and (len(before) >= self.capacity or sum(each[1] for each in before) + size > self.capacity_bytes):
            if self.overflow is Overflow.DROP_NEWEST:
                self.waiting.pop()
                return
            if self.overflow is Overflow.DISCONNECT:
                self.waiting.clear()
                self.ended = True
                return
            before.pop(0)
        self.waiting = collections.deque([*before, new])

    def progress(self) -> None:
        while self.waiting and self.credit > 0 and self.credit_bytes > 0:
            number, size, _ = self.waiting.popleft()
            self.credit -= 1
            self.credit_bytes -= size
            self.got.append(number)


acts = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 12), st.sampled_from([40, 41, 60, 100]), st.sampled_from(["a", "b", "ab", "abc"])),
        st.integers(1, 6),
        st.just("tidy"),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(POLICIES), st.integers(1, 9), st.integers(30, 700), acts)
def test_whatever_happens_it_is_as_in_the_model_and_every_message_is_accounted_for(
    overflow: Overflow, capacity: int, capacity_bytes: int, acts: list[tuple[int, int, str] | int | str]
) -> None:
    publisher, link = Publisher(), Receiver()
    sink = lossy(link, overflow, (capacity, capacity_bytes, ANY))
    model = Model(overflow, capacity, capacity_bytes)
    sizes: list[int] = []
    returned = matched = 0
    for act in [*acts, *[1] * 300]:
        if isinstance(act, tuple):
            count, size, topics = act
            if not sink.ended:
                matched += count
            sink.offer(publisher.run(count, size, topics))
            for index in range(count):
                if overflow is Overflow.DISCONNECT and not model.ended and count > 1:
                    continue
                model.offer(len(sizes) + index, size, topics[index % len(topics)])
            if overflow is Overflow.DISCONNECT and count > 1:
                # A run that does not fit is lost as one.
                whole = Model(overflow, capacity, capacity_bytes)
                whole.__dict__.update(model.__dict__, waiting=model.waiting.copy(), got=[*model.got])
                for index in range(count):
                    whole.offer(len(sizes) + index, size, "")
                model = whole
            sizes += [size] * count
        elif isinstance(act, int):
            back = link.got[returned : returned + act]
            returned += len(back)
            total = sum(sizes[number] for number in back)
            assert sink.give_back(len(back), total, 0)
            sink.progress()
            model.credit += len(back)
            model.credit_bytes += total
            model.progress()
        else:
            sink.tidy()
        assert link.got == model.got
        assert (sink.waiting_messages, sink.ended) == (len(model.waiting), model.ended)
        assert sink.lost == matched - len(link.got) - sink.waiting_messages
        assert link.hub.queued_bytes == link.holdings.bytes
    assert (publisher.kept, link.hub.queued_bytes, sink._queue.bytes, sink._queue.messages) == (0, 0, 0, 0)
    # A gap is exactly as long as what is said to be lost in it.
    expected = 0
    for number, lost in link.story[:-1]:
        assert number == expected + lost
        expected = number + 1
    assert link.story[-1][1] == matched - expected
