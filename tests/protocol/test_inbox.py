"""The law of the inbox: any chunking of the same bytes yields the same frames, or the same error."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.errors import SockbusError
from sockbus.fd import closing_settled
from sockbus.protocol.frame import Kind
from sockbus.protocol.inbox import MAX_RUN, Inbox, Run, fit

from .cases import FAULTS, FAULTS_OF_FDS, HEADERS, OK, OTHER_FDS, PIECED, PLAIN, RECEIPT, VALID, WITH_FD, Case
from .chunks import Sent, chunks, drive, expected, frames_of, receive, size_of


@pytest.fixture(scope="module")
def files() -> Iterator[list[int]]:
    """Open files to send."""
    made = [os.memfd_create(f"file {number}") for number in range(8)]
    yield made
    for fd in made:
        os.close(fd)


def check_case(case: Case, stream: list[Sent], cuts: Any, files: list[int]) -> None:
    frames, code = drive(stream, cuts, files=files, **case.options)
    wanted = expected(stream, files)
    assert code == case.code
    if case in FAULTS_OF_FDS:
        # How many come before the error depends on the chunks; none gets what it did not declare.
        assert frames == [
            seen
            if len(seen.files) == seen.declared and case.options.get("carries_fds", True)
            else seen._replace(files=())
            for seen in wanted[: len(frames)]
        ]
    else:
        assert frames == (wanted if code is None else wanted[: case.good])


@pytest.mark.parametrize("case", [*VALID, *FAULTS, *FAULTS_OF_FDS], ids=repr)
class TestAnyChunkingYieldsTheSame:
    def test_whole(self, case: Case, files: list[int]) -> None:
        check_case(case, case.stream, (), files)

    def test_byte_by_byte(self, case: Case, files: list[int]) -> None:
        check_case(case, case.stream, range(min(size_of(case.stream), 2000)), files)

    def test_frame_by_frame(self, case: Case, files: list[int]) -> None:
        check_case(case, case.stream, [size_of(case.stream[:number]) for number in range(len(case.stream))], files)

    @pytest.mark.parametrize("behind", [PLAIN, OK])
    def test_with_a_frame_behind(self, case: Case, behind: Sent, files: list[int]) -> None:
        stream = [*case.stream, behind]
        check_case(case, stream, (), files)
        check_case(case, stream, range(min(size_of(stream), 2000)), files)

    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def test_with_any_cuts(self, case: Case, files: list[int], data: st.DataObject) -> None:
        check_case(case, case.stream, data.draw(st.sets(st.integers(1, max(1, size_of(case.stream))))), files)


small = st.binary(max_size=40)
runs = st.builds(
    lambda topic, sender, payloads: [Sent(topic=topic, sender=sender, payload=payload) for payload in payloads],
    st.sampled_from([b"a", b"b", b"a.b"]),
    st.sampled_from([1, 2]),
    st.lists(small | st.just(b"1234"), min_size=1, max_size=6),
)
controls = st.builds(
    lambda kind, correlation, payload: [Sent(kind, correlation=correlation, payload=payload)],
    st.sampled_from([Kind.OK, Kind.PIECE, Kind.DELIVER, Kind.WINDOW, Kind.CREDIT, Kind.ANSWER]),
    st.integers(0, 3),
    small,
)
with_fds = st.builds(
    lambda kind, files, payload: [Sent(kind, files=tuple(files), correlation=2, payload=payload)],
    st.sampled_from([Kind.PUBLISH, Kind.REQUEST, Kind.REPLY]),
    st.lists(st.integers(0, 7), min_size=1, max_size=4),
    small,
)
large = st.builds(
    lambda topic, size: [Sent(topic=topic, payload=bytes(size))],
    st.sampled_from([b"a", b"b"]),
    st.sampled_from([30_000, 65_440, 65_500, 65_509]),
)
streams = st.lists(runs | controls | with_fds | runs | large, max_size=8).map(lambda parts: [*itertools.chain(*parts)])


@settings(deadline=None)
@given(streams, st.data())
def test_frames_come_out_as_they_went_in(files: list[int], stream: list[Sent], data: st.DataObject) -> None:
    edges = [size_of(stream[:number]) for number in range(len(stream))]
    cut = st.integers(0, size_of(stream)) | st.builds(
        lambda edge, offset: max(0, edge + offset), st.sampled_from([0, *edges]), st.integers(-3, 30)
    )
    assert drive(stream, data.draw(st.sets(cut)), files=files) == (expected(stream, files), None)


@settings(deadline=None)
@given(streams, st.data())
def test_records_of_whole_frames_come_out_as_they_went_in(
    files: list[int], stream: list[Sent], data: st.DataObject
) -> None:
    edges = [size_of(stream[:number]) for number in range(len(stream) + 1)]
    cuts = data.draw(st.sets(st.sampled_from(edges)))
    for edge, after in itertools.pairwise(edges):
        if after - max([cut for cut in cuts if cut <= edge], default=0) > 65_536:
            cuts.add(edge)
    assert drive(stream, cuts, files=files, record=True) == (expected(stream, files), None)


def look_into(run: Run) -> None:
    """What a session does with a frame that starts a message: only errors of sockbus come of it."""
    if run.count == 1 and run.kind in (Kind.PUBLISH, Kind.REQUEST, Kind.REPLY):
        total, headers, at = run.parts()
        assert total >= run.end - at
        assert run.start < at - len(headers) <= at <= run.end


@settings(deadline=None)
@given(st.binary(max_size=200), st.sets(st.integers(0, 200)), st.booleans())
def test_garbage_is_an_error_or_unfinished(data: bytes, cuts: set[int], behind: bool) -> None:
    garbage = PLAIN.data + data if behind else data
    edges = sorted({0, len(garbage), *(cut for cut in cuts if cut < len(garbage))})
    outcomes = []
    for pieces in ([garbage], [garbage[a:b] for a, b in itertools.pairwise(edges)]):
        inbox, frames, code = Inbox(carries_fds=True), [], None
        try:
            for piece in pieces:
                receive(inbox, piece, (), frames, touch=look_into)
            inbox.end()
        except SockbusError as error:
            code = error.code
        outcomes.append((frames, code))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0][0]) >= behind


@settings(deadline=None)
@given(streams, st.data())
def test_damaged_streams_raise_errors_of_sockbus_alone(
    files: list[int], stream: list[Sent], data: st.DataObject
) -> None:
    class Damaged(Sent):
        @property
        def data(self) -> bytes:
            return damaged[id(self)]

    damaged: dict[int, bytes] = {}
    spoilt = []
    for sent in stream:
        copy = Damaged(**{name: getattr(sent, name) for name in Sent.__slots__})
        content = bytearray(sent.data)
        for at in data.draw(st.lists(st.integers(0, min(len(content), 60) - 1), max_size=2)):
            content[at] = data.draw(st.integers(0, 255))
        damaged[id(copy)] = bytes(content)
        spoilt.append(copy)
    cuts = data.draw(st.sets(st.integers(0, max(1, size_of(stream)))))
    _, code = drive(spoilt, cuts, files=files, touch=look_into)
    assert code in (None, "protocol", "too-large", "too-many-fds", "payload")


# Runs


def received(data: bytes, **options: Any) -> list[Run]:
    return list(Inbox(**{"carries_fds": True, **options}).receive(data))


def test_publishes_alike_come_as_one_run() -> None:
    stream = [PLAIN, Sent(topic=b"a.b", payload=b"longer"), PLAIN]
    data = b"".join(sent.data for sent in [OK, *stream, OK])
    (_, run, _) = received(data)
    assert (run.count, run.kind, run.topic, run.sender) == (3, Kind.PUBLISH, b"a.b", 7)
    assert run.data == b"".join(sent.data for sent in stream)
    assert run.buffer is data


@pytest.mark.parametrize(
    "other",
    [
        Sent(topic=b"a.c", payload=b"\x01"),
        Sent(topic=b"a.b", payload=b"\x01", sender=8),
        Sent(topic=b"a.b", payload=b"\x01", correlation=1),
        Sent(topic=b"a.b", payload=b"\x01", correlation=1, flags=RECEIPT),
        Sent(topic=b"a.b", payload=b"\x01", correlation=1, flags=HEADERS),
        Sent(Kind.REQUEST, topic=b"a.b", payload=b"\x01"),
    ],
)
def test_what_is_not_alike_ends_a_run(other: Sent) -> None:
    data = b"".join(sent.data for sent in [PLAIN, PLAIN, other, other, PLAIN])
    assert [run.count for run in received(data)] in ([2, 1, 1, 1], [2, 2, 1])
    assert [run.count for run in received(other.data * 2)] == (
        [2] if not other.correlation and other.kind == 32 else [1, 1]
    )


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([100] * 654, [654]),
        ([100] * 655, [654, 1]),
        ([MAX_RUN - 100, 100], [2]),
        ([MAX_RUN - 99, 100], [1, 1]),
        ([100, MAX_RUN - 99, 100], [1, 1, 1]),
        ([100, MAX_RUN - 100, 100], [2, 1]),
        ([MAX_RUN], [1]),
        ([65_536, 65_536], [1, 1]),
        ([65_536, 100, 100], [1, 2]),
    ],
)
def test_run_and_a_frame_in_front_fit_into_one_record(sizes: list[int], counts: list[int]) -> None:
    data = b"".join(Sent(topic=b"a", payload=bytes(size - 27)).data for size in sizes)
    found = received(data)
    assert MAX_RUN + 64 == 65_536
    assert [run.count for run in found] == counts
    assert b"".join(run.data for run in found) == data
    assert all(len(run.data) <= MAX_RUN for run in found if run.count > 1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(-1, 25), st.integers(-100, 4000))
def test_fit_counts_messages_while_there_is_credit(sizes: list[int], messages: int, size: int) -> None:
    frames = [Sent(topic=b"a", payload=bytes(number)).data for number in sizes]
    count, at = 0, 0
    while count < len(frames) and messages - count > 0 and size - at > 0:
        at += len(frames[count])
        count += 1
    data = b"front" + b"".join(frames)
    assert fit(data, 5, len(data), messages, size) == (count, at + 5)


# The parts of a message


def single(sent: Sent, **options: Any) -> Run:
    (run,) = received(PLAIN.data * 2 + sent.data, **options)[1:]
    return run


TOTAL_10 = (10).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("flags", "front", "payload", "total", "headers"),
    [
        (0, b"", b"", 0, b""),
        (0, b"", b"12345", 5, b""),
        (RECEIPT, b"", b"12345", 5, b""),
        (HEADERS, b"\x00\x01\x80", b"12345", 5, b"\x80"),
        (HEADERS, b"\x00\x00", b"12345", 5, b""),
        (HEADERS, b"\x00\x02ab", b"", 0, b"ab"),
        (PIECED, TOTAL_10, b"1", 10, b""),
        (PIECED, TOTAL_10, b"123456789", 10, b""),
        (PIECED | HEADERS, TOTAL_10 + b"\x00\x01\x80", b"1", 10, b"\x80"),
        (PIECED, b"\xff" * 8, b"1", (1 << 64) - 1, b""),
    ],
)
def test_parts_of_a_message_are_found(flags: int, front: bytes, payload: bytes, total: int, headers: bytes) -> None:
    run = single(Sent(topic=b"abc", correlation=1, flags=flags, payload=front + payload))
    at = run.end - len(payload)
    assert run.parts() == (total, headers, at)
    assert run.buffer[at : run.end] == payload
    assert run.body == front + payload


@pytest.mark.parametrize(
    ("flags", "body", "code"),
    [
        (PIECED, b"", "protocol"),
        (PIECED, TOTAL_10[:7], "protocol"),
        (PIECED, TOTAL_10, "protocol"),
        (PIECED, TOTAL_10 + b"1234567890", "protocol"),
        (PIECED, TOTAL_10 + b"12345678901", "protocol"),
        (PIECED, bytes(8) + b"1", "protocol"),
        (PIECED, bytes(7) + b"\x011", "protocol"),
        (HEADERS, b"", "payload"),
        (HEADERS, b"\x00", "payload"),
        (HEADERS, b"\x00\x01", "payload"),
        (HEADERS, b"\xff\xff12345", "payload"),
        (PIECED | HEADERS, TOTAL_10 + b"\x00", "payload"),
        (PIECED | HEADERS, TOTAL_10 + b"\x00\x011", "protocol"),
        (PIECED | HEADERS, TOTAL_10 + b"\x00\x0212", "protocol"),
    ],
)
def test_parts_that_do_not_fit_are_an_error(flags: int, body: bytes, code: str) -> None:
    # What follows in the buffer belongs to the next frame and mends nothing.
    sent = Sent(topic=b"abc", correlation=1, flags=flags, payload=body)
    run = received(sent.data + PLAIN.data * 3)[0]
    with pytest.raises(SockbusError) as caught:
        run.parts()
    assert caught.value.code == code


# Descriptors


def test_fds_find_their_frame_behind_plain_ones(files: list[int]) -> None:
    # As one recvmsg may return them: plain bytes that came before, and the fds of the next sendmsg with them.
    inbox = Inbox(carries_fds=True)
    frames: list[Any] = []
    data = PLAIN.data + PLAIN.data + WITH_FD.data
    receive(inbox, data[:-3], [os.dup(files[0])], frames)
    assert [seen.files for seen in frames] == [(), ()]
    receive(inbox, data[-3:] + OTHER_FDS.data, [os.dup(files[1]), os.dup(files[2])], frames)
    assert frames == expected([PLAIN, PLAIN, WITH_FD, OTHER_FDS], files)


@pytest.mark.parametrize("cut", [1, 25, 26, 28])
def test_group_of_an_unfinished_plain_frame_is_for_no_later_one(cut: int, files: list[int]) -> None:
    inbox = Inbox(carries_fds=True)
    late = Sent(topic=b"a.b", payload=b"\x02", declared=1)
    with pytest.raises(SockbusError, match=r"file descriptors"):
        for data, fds in (
            (PLAIN.data[:cut], [os.dup(files[0])]),
            (PLAIN.data[cut:] + late.data[:5], []),
            (late.data[5:], []),
        ):
            receive(inbox, data, fds, [])
    inbox.close()


@pytest.mark.parametrize("size", [10, 27])
def test_unfinished_frame_gets_one_group(size: int, files: list[int]) -> None:
    inbox = Inbox(carries_fds=True)
    receive(inbox, WITH_FD.data[:size], [os.dup(files[0])], [])
    with pytest.raises(SockbusError, match=r"file descriptors came that no frame declares"):
        receive(inbox, WITH_FD.data[size : size + 1], [os.dup(files[1])], [])
    inbox.close()


@pytest.mark.parametrize("cut", [26, 28])
def test_missing_group_is_noticed_before_the_frame_is_whole(cut: int) -> None:
    inbox = Inbox(carries_fds=True)
    with pytest.raises(SockbusError, match=r"declares 1 file descriptors and 0 came"):
        receive(inbox, Sent(topic=b"a.b", declared=1).data[:cut], [], [])


def test_close_closes_what_no_frame_claimed(files: list[int]) -> None:
    inbox = Inbox(carries_fds=True)
    waiting = os.dup(files[0])
    receive(inbox, WITH_FD.data[:10], [waiting], [])
    assert inbox.unfinished_bytes == 10
    inbox.close()
    assert closing_settled(30)
    assert not os.path.exists(f"/proc/self/fd/{waiting}")
    assert inbox.unfinished_bytes == 0
    inbox.end()


def test_closed_inbox_closes_what_still_comes(files: list[int]) -> None:
    inbox = Inbox(carries_fds=True)
    inbox.close()
    late = os.dup(files[0])
    assert list(inbox.receive(WITH_FD.data, [late])) == []
    assert closing_settled(30)
    assert not os.path.exists(f"/proc/self/fd/{late}")


def test_abandoned_chunk_leaves_its_fds_to_close(files: list[int]) -> None:
    inbox = Inbox(carries_fds=True)
    waiting = os.dup(files[0])
    for run in inbox.receive(PLAIN.data + OK.data + WITH_FD.data, [waiting]):
        assert run.fds == ()
        break
    inbox.close()
    assert closing_settled(30)
    assert not os.path.exists(f"/proc/self/fd/{waiting}")


def test_claimed_fds_belong_to_whoever_took_the_run(files: list[int]) -> None:
    inbox = Inbox(carries_fds=True)
    fd = os.dup(files[0])
    for run in inbox.receive(WITH_FD.data + PLAIN.data, [fd]):
        assert run.fds == (fd,)
        break
    inbox.close()
    assert closing_settled(30)
    assert os.fstat(fd).st_ino == os.fstat(files[0]).st_ino
    os.close(fd)


# Ends and records


@pytest.mark.parametrize("size", [1, 25, 26, 28, 29])
@pytest.mark.parametrize("bytewise", [True, False])
def test_end_inside_a_frame_is_an_error(size: int, bytewise: bool) -> None:
    inbox = Inbox(carries_fds=True)
    data = PLAIN.data + Sent(topic=b"a.b", payload=b"1234").data[:size]
    frames: list[Any] = []
    for chunk in [data[at : at + 1] for at in range(len(data))] if bytewise else [data]:
        receive(inbox, chunk, (), frames)
    assert len(frames) == 1
    assert inbox.unfinished_bytes == size
    with pytest.raises(SockbusError, match=rf"ended inside a frame, after {size} bytes") as caught:
        inbox.end()
    assert caught.value.code == "protocol"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (PLAIN.data[:-1], "ends inside a frame, after 29 bytes"),
        (PLAIN.data + PLAIN.data[:1], "ends inside a frame, after 1 bytes"),
        (PLAIN.data + b"\x00", "0x00 does not begin a frame"),
        (Sent(payload=bytes(32_742)).data * 2 + b"\xc9", "a record of 65537 bytes came; 65536 are allowed"),
        (Sent(payload=bytes(30_000)).data * 3, "a record of 90078 bytes came"),
    ],
)
def test_record_that_is_not_whole_frames_is_an_error(data: bytes, reason: str) -> None:
    with pytest.raises(SockbusError, match=reason) as caught:
        received(data, record=True)
    assert caught.value.code == "protocol"


def test_record_may_be_as_large_as_a_frame() -> None:
    half = Sent(payload=bytes(32_742)).data
    assert len(half * 2) == 65_536
    assert sum(run.count for run in received(half * 2, record=True)) == 2
    assert len(received(Sent(payload=bytes(65_510)).data, record=True)) == 1


def test_nothing_comes_of_an_empty_chunk() -> None:
    assert received(b"") == []
    assert received(b"", record=True) == []
    assert [seen.body for run in received(PLAIN.data) for seen in frames_of(run)] == [b"\x01"]
    assert list(chunks([], [])) == []
