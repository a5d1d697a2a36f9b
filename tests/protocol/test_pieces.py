"""Messages larger than a frame: cut up and put together again, and counted as docs/wire.md says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.errors import MessageTooLarge, ProtocolError
from sockbus.protocol.frame import MAX_FRAME, Flag, Kind, encode
from sockbus.protocol.inbox import Inbox, Run
from sockbus.protocol.pieces import MAX_HEADERS, Assembly, cut, message_cost

from .chunks import Sent

TOPIC = b"files.raw"
ROOM = 65_536 - 26 - len(TOPIC)


def runs(frames: list[bytes], files: int = 0) -> list[Run]:
    return list(Inbox(carries_fds=False, fds_may_miss=True).receive(b"".join(frames)))


def assemble(found: list[Run]) -> Assembly:
    first, *pieces = found
    assembly = Assembly(first, *first.parts())
    for number, piece in enumerate(pieces, 1):
        assert assembly.add(piece) is (number == len(pieces))
    return assembly


def payload_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251 + 1)


@pytest.mark.parametrize(
    ("size", "headers", "sizes"),
    [
        (0, b"", [26 + 9]),
        (1, b"", [26 + 9 + 1]),
        (ROOM - 1, b"", [65_535]),
        (ROOM, b"", [65_536]),
        (ROOM + 1, b"", [65_536, 26 + 9]),
        (ROOM - 8 + 65_510, b"", [65_536, 65_536]),
        (ROOM - 8 + 65_511, b"", [65_536, 65_536, 27]),
        (ROOM - 7, b"abcde", [65_536]),
        (ROOM - 6, b"abcde", [65_536, 26 + 9]),
        (1 << 20, b"abcde", [65_536] * 16 + [26 + 440]),
    ],
)
def test_frames_are_filled_before_the_next_begins(size: int, headers: bytes, sizes: list[int]) -> None:
    payload = payload_of(size)[:size]
    frames = cut(Kind.PUBLISH, TOPIC, payload, sender=3, correlation=5, headers=headers)
    assert [len(frame) for frame in frames] == sizes
    assert assemble(runs(frames)).payload() == payload


@settings(deadline=None)
@given(
    st.integers(0, 300_000) | st.integers(ROOM - 40, ROOM + 10),
    st.binary(max_size=30),
    st.sampled_from([Kind.PUBLISH, Kind.REQUEST, Kind.REPLY]),
)
def test_message_comes_together_as_it_was(size: int, headers: bytes, kind: Kind) -> None:
    payload = payload_of(size)[:size]
    topic = b"" if kind is Kind.REPLY else TOPIC
    frames = cut(kind, topic, payload, sender=3, correlation=5, headers=headers, fds=2)
    assert max(map(len, frames)) <= MAX_FRAME
    found = runs(frames)
    assert [run.kind for run in found] == [kind] + [Kind.PIECE] * (len(frames) - 1)
    assert {(run.sender, run.correlation) for run in found} == {(3, 5)}
    assert [run.declared_fds for run in found] == [2] + [0] * (len(frames) - 1)
    assembly = assemble(found)
    assert (assembly.payload(), assembly.headers, assembly.total) == (payload, headers, size)
    assert assembly.missing == 0
    assert b"".join(assembly.frames) == b"".join(frames)
    assert assembly.cost == len(frames[0]) + sum(len(frame) - 26 for frame in frames[1:])
    total, _, at = found[0].parts()
    assert message_cost(found[0], total, at) == assembly.cost


@pytest.mark.parametrize(
    ("size", "headers", "flags", "expected"),
    [
        (1, b"", 0, 0),
        (1, b"\x80", 0, Flag.HEADERS),
        (1, b"", Flag.RECEIPT, Flag.RECEIPT),
        (ROOM + 1, b"", Flag.RECEIPT, Flag.RECEIPT | Flag.PIECED),
        (ROOM + 1, b"\x80", 0, Flag.HEADERS | Flag.PIECED),
    ],
)
def test_flags_say_what_the_frame_holds(size: int, headers: bytes, flags: int, expected: int) -> None:
    first = runs(cut(Kind.PUBLISH, TOPIC, bytes(size), sender=3, correlation=5, headers=headers, flags=flags))[0]
    assert first.flags == expected


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    ("headers", "refused"), [(MAX_HEADERS - 1, False), (MAX_HEADERS, False), (MAX_HEADERS + 1, True)]
)
def test_headers_leave_room_for_a_byte_of_payload(size: int, headers: int, refused: bool) -> None:
    arguments: dict[str, Any] = {"sender": 3, "correlation": 5, "headers": bytes(headers)}
    if refused:
        with pytest.raises(MessageTooLarge, match=rf"headers of {headers} bytes do not fit"):
            cut(Kind.PUBLISH, b"a" * 255, bytes(size), **arguments)
    else:
        frames = cut(Kind.PUBLISH, b"a" * 255, bytes(size), **arguments)
        assert max(map(len, frames)) <= MAX_FRAME
        assert assemble(runs(frames)).payload() == bytes(size)


@pytest.mark.parametrize(
    ("sizes", "files", "slices"),
    [
        ([1] * 17, 0, [[1] * 17]),
        ([1] * 17, 1, [[1], [1] * 16]),
        ([65_000, 1, 1], 0, [[65_000, 1, 1]]),
        ([65_000, 403, 1], 0, [[65_000, 403], [1]]),
        ([65_000, 404, 1], 0, [[65_000], [404, 1]]),
        ([65_493, 65_510, 7], 0, [[65_493], [65_510], [7]]),
    ],
)
def test_small_frames_are_joined_for_those_that_forward_them(
    sizes: list[int], files: int, slices: list[list[int]]
) -> None:
    payload = payload_of(sum(sizes))[: sum(sizes)]
    first = sum(sizes).to_bytes(8, "big") + payload[: sizes[0]]
    frames = [encode(Kind.PUBLISH, TOPIC, first, 3, 5, files, Flag.PIECED)]
    at = sizes[0]
    for size in sizes[1:]:
        frames.append(encode(Kind.PIECE, b"", payload[at : at + size], 3, 5))
        at += size
    assembly = assemble(runs(frames))
    joined = assembly.joined()
    assert b"".join(joined) == b"".join(frames)
    sizes_of_frames = iter(map(len, frames))
    assert [len(part) for part in joined] == [sum(next(sizes_of_frames) for _ in part) for part in slices]
    assert assembly.payload() == payload


def test_what_came_with_a_first_frame_does_not_stay_with_it() -> None:
    """A hundred kilobytes that came in one read would be kept for a message of a few bytes that is never whole."""
    sent = Sent(topic=b"a", correlation=5, flags=Flag.PIECED, payload=(10).to_bytes(8, "big") + b"12")
    _, first, *_ = runs([Sent(payload=bytes(60_000)).data, sent.data, Sent(payload=bytes(60_000)).data])
    assembly = Assembly(first, *first.parts())
    assert assembly.first.buffer == sent.data
    assert assembly.first.parts() == (10, b"", len(sent.data) - 2)
    assert assembly.add(piece(b"34567890"))
    assert assembly.payload() == b"1234567890"


# What a peer may get wrong


def started(total: int = 10, here: bytes = b"12") -> Assembly:
    sent = Sent(topic=b"a", correlation=5, flags=Flag.PIECED, payload=total.to_bytes(8, "big") + here)
    (first,) = runs([sent.data])
    return Assembly(first, *first.parts())


def piece(payload: bytes) -> Run:
    (run,) = runs([Sent(Kind.PIECE, correlation=5, payload=payload).data])
    return run


def test_message_is_whole_when_its_parts_add_up() -> None:
    assembly = started()
    assert [assembly.add(piece(part)) for part in (b"3", b"456", b"7890")] == [False, False, True]
    assert assembly.payload() == b"1234567890"
    assert assembly.missing == 0


@pytest.mark.parametrize("parts", [[b""], [b"3", b""], [b"345678901"], [b"3456789", b"01"], [b"34567890", b"1"]])
def test_piece_that_is_empty_or_too_much_is_refused(parts: list[bytes]) -> None:
    assembly = started()
    for part in parts[:-1]:
        assembly.add(piece(part))
    before = (assembly.missing, len(assembly.frames))
    with pytest.raises(ProtocolError, match=r"add up to the total"):
        assembly.add(piece(parts[-1]))
    assert (assembly.missing, len(assembly.frames)) == before


@pytest.mark.parametrize(("total", "pieces"), [(100, 16), (16 * 1024, 32)])
def test_pieces_are_limited_in_number(total: int, pieces: int) -> None:
    # Each costs more to keep than it is charged for: a byte at a time, 64 MiB would fill gigabytes.
    assembly = started(total)
    for _ in range(pieces):
        assert not assembly.add(piece(b"x"))
    with pytest.raises(ProtocolError, match=rf"more than {pieces} pieces"):
        assembly.add(piece(b"x"))
