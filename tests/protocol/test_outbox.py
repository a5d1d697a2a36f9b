"""The outbox against a naive model: what is put leaves once, whole, in order, and its fds with it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.fd import SharedFds, closing_settled
from sockbus.protocol.frame import Kind, encode
from sockbus.protocol.inbox import Inbox
from sockbus.protocol.outbox import Batch, Lane, Outbox

CONTROL, MESSAGES, CALLS = Lane.CONTROL, Lane.MESSAGES, Lane.CALLS
LAST, SMALL = "last", "small"
RECORD = 65_536


def frame(number: int, size: int = 40, fds: int = 0) -> bytes:
    """A frame of exactly this size that says which one it is."""
    return encode(Kind.PUBLISH, topic=b"", payload=bytes(size - 26), correlation=number + 1, fds=fds)


def numbers_in(data: bytes) -> list[int]:
    """Which frames these whole bytes are."""
    return [run.correlation - 1 for run in Inbox(carries_fds=False, fds_may_miss=True).receive(data)]


def bytes_of(batch: Batch) -> bytes:
    return b"".join(batch.buffers)


def drain(outbox: Outbox, step: int | None = None) -> Iterator[bytes]:
    """The batches, whole, sent ``step`` bytes at a time."""
    while (batch := outbox.batch()) is not None:
        data = bytes_of(batch)
        assert len(data) == batch.size > 0
        yield data
        for at in range(0, len(data), step or len(data)):
            rest = outbox.batch()
            assert rest is batch
            assert bytes_of(rest) == data[at:]
            outbox.sent(min(step or len(data), len(data) - at))


class Fds:
    """Makes descriptors to send, and counts what was closed."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.released: list[int] = []

    def make(self, number: int, count: int = 1) -> SharedFds:
        fds = tuple(os.memfd_create("sent") for _ in range(count))
        self.made.append(number)
        return SharedFds(fds, lambda closed: self.released.append(number))


@pytest.fixture
def fds() -> Iterator[Fds]:
    made = Fds()
    yield made
    assert closing_settled(30)
    assert sorted(made.released) == sorted(made.made)


# The model


class Model:
    """What an outbox has to do, said simply: lists of frames, checked as each batch is composed and sent."""

    def __init__(self, records: bool) -> None:
        self.outbox = Outbox(records=records)
        self.limit = RECORD if records else 2 * RECORD
        self.fds = Fds()
        self.lanes: dict[Lane, list[int]] = {lane: [] for lane in Lane}
        self.last: list[tuple[int, set[int]]] = []  # number, and what has to leave before it
        self.sizes: dict[int, int] = {}
        self.with_fds: set[int] = set()
        self.queued_bytes = 0
        self.batch: Batch | None = None
        self.rest = b""
        self.wire = b""

    def put(self, where: Lane | str, size: int, with_fds: bool) -> None:
        number = len(self.sizes)
        self.sizes[number] = size
        self.queued_bytes += size
        if where == SMALL:
            self.lanes[MESSAGES].append(number)
            self.outbox.put_small(frame(number, size), size)
            return
        if not isinstance(where, Lane):
            self.last.append((number, set(itertools.chain(*self.lanes.values()))))
            self.outbox.put_last(frame(number, size))
            return
        self.lanes[where].append(number)
        if with_fds:
            self.with_fds.add(number)
            self.outbox.put(where, frame(number, size, fds=1), self.fds.make(number))
        else:
            self.outbox.put(where, frame(number, size))

    def compose(self) -> None:
        batch = self.outbox.batch()
        if self.batch is not None:
            assert batch is self.batch
            return
        if batch is None:
            assert self.queued_bytes == 0
            return
        self.batch, self.rest = batch, bytes_of(batch)
        found = numbers_in(self.rest)
        assert 0 < len(self.rest) == batch.size <= max(self.limit, self.sizes[found[0]])
        assert batch.size <= self.limit
        assert [number in self.with_fds for number in found] == (
            [True] if batch.fds is not None else [False] * len(found)
        )
        for number in found:
            self._take(number)

    def _take(self, number: int) -> None:
        waiting = set(itertools.chain(*self.lanes.values()))
        if self.last and number == self.last[0][0]:
            assert not self.last.pop(0)[1] & waiting
            return
        (lane,) = [lane for lane in Lane if number in self.lanes[lane]]
        assert self.lanes[lane].pop(0) == number
        assert lane is CONTROL or not self.lanes[CONTROL]

    def send(self, share: float) -> None:
        self.compose()
        if self.batch is None:
            return
        size = max(1, int(self.batch.size * share))
        had_fds = self.batch.fds is not None
        released = len(self.fds.released)
        self.outbox.sent(size)
        assert len(self.fds.released) == released + had_fds
        self.wire += self.rest[:size]
        self.rest = self.rest[size:]
        self.queued_bytes -= size
        if self.rest:
            assert bytes_of(self.batch) == self.rest
        else:
            self.batch = None

    def check(self) -> None:
        assert self.outbox.queued_bytes == self.queued_bytes
        for lane in (MESSAGES, CALLS):
            assert self.outbox.lane_bytes(lane) == sum(self.sizes[number] for number in self.lanes[lane])


sizes = st.sampled_from([26, 27, 100, 4000, 4095, 4096, 4097, 5000, 30_000, 65_535, 65_536]) | st.integers(26, 6000)
shares = st.sampled_from([0.0, 0.001, 0.5, 0.999, 1.0, 1.0, 1.0])
operations = st.lists(
    st.tuples(
        st.just("put"),
        st.sampled_from([*Lane, MESSAGES, CALLS, LAST, SMALL, SMALL]),
        sizes,
        st.sampled_from([True, False, False]),
    )
    | st.tuples(st.just("send"), shares)
    | st.tuples(st.just("compose")),
    max_size=60,
)


@settings(max_examples=500, deadline=None)
@given(st.booleans(), operations, st.booleans())
def test_outbox_does_what_the_model_says(records: bool, steps: list[tuple[object, ...]], closes: bool) -> None:
    model = Model(records)
    for name, *arguments in steps:
        getattr(model, str(name))(*arguments)
        model.check()
    if closes:
        model.outbox.close()
        assert (model.outbox.queued_bytes, model.outbox.batch()) == (0, None)
    else:
        while model.queued_bytes:
            model.send(1.0)
            model.check()
        assert sorted(numbers_in(model.wire)) == list(range(len(model.sizes)))
        assert not model.last
    assert sorted(model.fds.released) == sorted(model.fds.made)
    assert closing_settled(30)


# Lanes


def test_control_frames_pass_everything() -> None:
    outbox = Outbox(records=False)
    for number, lane in enumerate([MESSAGES, CALLS, CONTROL, MESSAGES, CONTROL]):
        outbox.put(lane, frame(number))
    assert numbers_in(b"".join(drain(outbox)))[:2] == [2, 4]


@pytest.mark.parametrize("records", [True, False])
def test_no_message_leaves_before_a_control_frame_without_room(records: bool) -> None:
    # A PEER frame stands before the first message of its peer, however many control frames there are.
    outbox = Outbox(records=records)
    size = 50_000
    for number in range(3):
        outbox.put(CONTROL, frame(number, size))
    outbox.put(MESSAGES, frame(3))
    outbox.put(CALLS, frame(4))
    assert numbers_in(b"".join(drain(outbox))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("busy", [MESSAGES, CALLS])
def test_busy_lane_delays_the_other_by_one_batch_at_most(records: bool, busy: Lane) -> None:
    other = MESSAGES if busy is CALLS else CALLS
    outbox = Outbox(records=records)
    for number in range(20):
        outbox.put(busy, frame(number, RECORD))
    batches = []
    for data in drain(outbox):
        batches.append(numbers_in(data))
        if len(batches) == 3:
            outbox.put(other, frame(20))
    # It was put while the third batch was on its way.
    assert any(20 in batch for batch in batches[3:5])


def test_both_lanes_take_turns_while_both_are_full() -> None:
    outbox = Outbox(records=True)
    for number in range(8):
        outbox.put(MESSAGES, frame(number, RECORD))
        outbox.put(CALLS, frame(number + 100, RECORD))
    calls = [numbers_in(data)[0] >= 100 for data in drain(outbox)]
    assert calls == [False, True] * 8


def put_small(outbox: Outbox, data: bytes) -> None:
    outbox.put_small(data, len(data))


def put(outbox: Outbox, data: bytes) -> None:
    outbox.put(MESSAGES, data)


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("way", [put, put_small])
def test_small_frames_share_batches(way: Callable[[Outbox, bytes], None], records: bool) -> None:
    outbox = Outbox(records=records)
    for number in range(1500):
        way(outbox, frame(number, 60))
    batches = list(drain(outbox))
    assert [len(data) for data in batches] == ([65_520, 24_480] if records else [90_000])
    assert numbers_in(b"".join(batches)) == list(range(1500))


@pytest.mark.parametrize("sizes_", [[RECORD, 26], [26, RECORD], [40_000, 40_000, 20_000], [65_000, 500, 37, 10_000]])
def test_record_is_whole_frames_and_no_larger_than_allowed(sizes_: list[int]) -> None:
    outbox = Outbox(records=True)
    for number, size in enumerate(sizes_):
        outbox.put(MESSAGES, frame(number, size))
    batches = list(drain(outbox))
    assert all(len(data) <= RECORD for data in batches)
    assert [number for data in batches for number in numbers_in(data)] == list(range(len(sizes_)))


def test_what_was_put_is_not_changed_by_what_comes_behind() -> None:
    outbox = Outbox(records=True)
    first = frame(0)
    outbox.put(MESSAGES, first)
    batch = outbox.batch()
    assert batch is not None
    outbox.put(MESSAGES, frame(1))
    assert bytes_of(batch) == first
    assert [numbers_in(data) for data in drain(outbox)] == [[0], [1]]


# Partial sends


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("step", [1, 7, 26, 200, 199, 201, 4096])
def test_any_cuts_send_the_same_bytes(records: bool, step: int, fds: Fds) -> None:
    outbox = Outbox(records=records)
    for number, size in enumerate([40, 5000, 40]):
        outbox.put(MESSAGES, frame(number, size))
    outbox.put(MESSAGES, frame(3, fds=1), fds.make(3))
    assert numbers_in(b"".join(drain(outbox, step))) == [0, 1, 2, 3]
    assert outbox.queued_bytes == 0


def test_what_is_put_between_partial_sends_waits_for_the_rest() -> None:
    outbox = Outbox(records=False)
    outbox.put(MESSAGES, frame(0, 5000))
    outbox.batch()
    outbox.sent(100)
    outbox.put(CONTROL, frame(1))
    outbox.put_last(frame(2))
    rest = outbox.batch()
    assert rest is not None
    assert bytes_of(rest) == frame(0, 5000)[100:]
    outbox.sent(rest.size)
    assert numbers_in(b"".join(drain(outbox))) == [1, 2]


@pytest.mark.parametrize("size", [-1, 0, 41])
def test_sizes_that_cannot_have_been_sent_are_refused(size: int) -> None:
    outbox = Outbox(records=True)
    with pytest.raises(RuntimeError):
        outbox.sent(40)
    outbox.put(MESSAGES, frame(0))
    outbox.batch()
    with pytest.raises(RuntimeError):
        outbox.sent(size)
    assert outbox.queued_bytes == 40


# Frames that leave last


def test_last_frame_leaves_after_all_that_was_queued(fds: Fds) -> None:
    outbox = Outbox(records=True)
    for number, lane in enumerate([MESSAGES, CALLS, CONTROL, MESSAGES]):
        outbox.put(lane, frame(number, 30_000))
    outbox.put(CALLS, frame(4, fds=1), fds.make(4))
    outbox.put_last(frame(5))
    outbox.put_last(frame(6))
    order = numbers_in(b"".join(drain(outbox)))
    assert sorted(order) == list(range(7))
    assert order[5:] == [5, 6]


def test_last_frame_waits_for_nothing_that_came_later() -> None:
    outbox = Outbox(records=True)
    outbox.put(MESSAGES, frame(0, RECORD))
    outbox.put_last(frame(1))
    for number in range(2, 6):
        outbox.put(MESSAGES, frame(number, RECORD))
    order = numbers_in(b"".join(drain(outbox)))
    assert order.index(1) == 1


def test_last_frame_of_an_empty_outbox_leaves_at_once() -> None:
    outbox = Outbox(records=True)
    outbox.put_last(frame(0))
    assert outbox.queued_bytes == 40
    assert [numbers_in(data) for data in drain(outbox)] == [[0]]


# Descriptors


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("way", [put, put_small])
def test_frame_with_fds_is_alone_in_its_batch(way: Callable[[Outbox, bytes], None], records: bool, fds: Fds) -> None:
    outbox = Outbox(records=records)
    for number in range(6):
        if number % 3 == 1:
            outbox.put(MESSAGES, frame(number, fds=2), fds.make(number, 2))
        else:
            way(outbox, frame(number))
    seen = []
    while (batch := outbox.batch()) is not None:
        seen.append((numbers_in(bytes_of(batch)), len(batch.fds.fds) if batch.fds is not None else 0))
        outbox.sent(batch.size)
    assert seen == [([0], 0), ([1], 2), ([2, 3], 0), ([4], 2), ([5], 0)]


def test_fds_are_let_go_of_with_the_first_byte(fds: Fds) -> None:
    outbox = Outbox(records=False)
    outbox.put(MESSAGES, frame(0, fds=1), fds.make(0))
    batch = outbox.batch()
    assert batch is not None
    assert batch.fds is not None
    assert fds.released == []
    outbox.sent(1)
    assert fds.released == [0]
    assert batch.fds is None
    outbox.sent(39)
    outbox.close()
    assert fds.released == [0]


def test_fds_in_several_outboxes_are_closed_by_the_last(fds: Fds) -> None:
    shared = fds.make(0)
    outboxes = [Outbox(records=True) for _ in range(3)]
    for outbox in outboxes:
        shared.hold()
        outbox.put(MESSAGES, frame(0, fds=1), shared)
    shared.release()
    assert list(drain(outboxes[0])) == [frame(0, fds=1)]
    outboxes[1].close()
    assert fds.released == []
    assert list(drain(outboxes[2])) == [frame(0, fds=1)]
    assert fds.released == [0]


def nothing(outbox: Outbox) -> None:
    pass


def begin(outbox: Outbox) -> None:
    outbox.batch()


def begin_and_send_a_byte(outbox: Outbox) -> None:
    outbox.batch()
    outbox.sent(1)


@pytest.mark.parametrize("before", [nothing, begin, begin_and_send_a_byte])
def test_close_lets_go_of_every_fd_once(before: Callable[[Outbox], None], fds: Fds) -> None:
    outbox = Outbox(records=True)
    for number, lane in enumerate([CALLS, MESSAGES, CALLS, MESSAGES]):
        outbox.put(lane, frame(number, fds=1), fds.make(number))
    outbox.put(CONTROL, frame(4))
    outbox.put_last(frame(5))
    before(outbox)
    for _ in range(2):
        outbox.close()
        assert sorted(fds.released) == [0, 1, 2, 3]
        assert (outbox.queued_bytes, outbox.batch(), outbox.lane_bytes(CALLS)) == (0, None, 0)


def test_closed_outbox_keeps_nothing_that_is_put(fds: Fds) -> None:
    outbox = Outbox(records=True)
    outbox.close()
    outbox.put(MESSAGES, frame(0))
    outbox.put(MESSAGES, frame(1, fds=1), fds.make(1))
    outbox.put_small(frame(2), len(frame(2)))
    outbox.put_last(frame(3))
    assert fds.released == [1]
    assert (outbox.queued_bytes, outbox.batch()) == (0, None)


def test_dropped_lanes_leave_the_begun_batch(fds: Fds) -> None:
    outbox = Outbox(records=False)
    outbox.put(MESSAGES, frame(0, 5000))
    outbox.batch()
    outbox.sent(10)
    outbox.put(MESSAGES, frame(1, fds=1), fds.make(1))
    outbox.put_last(frame(2))
    outbox.drop_lanes()
    assert fds.released == [1]
    assert outbox.queued_bytes == 4990
    outbox.put(CONTROL, frame(3))
    assert b"".join(drain(outbox)) == frame(0, 5000)[10:] + frame(3)
