"""The layout of a frame: docs/wire.md, "Frame", as arithmetic."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.errors import PayloadError
from sockbus.protocol.frame import (
    ALLOWED_FLAGS,
    FDS_OFFSET,
    FORWARDED,
    LENGTH_OFFSET,
    MAX_FRAME,
    MIN_FRAME,
    PREFIX_BYTES,
    TOPICAL,
    Flag,
    Kind,
    control,
    encode,
    head,
)

WIRE = (Path(__file__).resolve().parent.parent.parent / "docs" / "wire.md").read_text()

kinds = st.sampled_from(Kind)
bytes_ = st.integers(0, 255)
numbers = st.integers(0, (1 << 64) - 1)


@settings(deadline=None)
@given(kinds, bytes_, bytes_, numbers, numbers, st.binary(max_size=255), st.binary(max_size=300))
def test_frame_is_laid_out_as_specified(
    kind: Kind, fds: int, flags: int, sender: int, correlation: int, topic: bytes, payload: bytes
) -> None:
    frame = encode(kind, topic=topic, payload=payload, sender=sender, correlation=correlation, fds=fds, flags=flags)
    size = 26 + len(topic) + len(payload)
    assert len(frame) == size
    assert frame[0] == 0xC9
    assert struct.unpack_from(">I", frame, 1) == (size - 6,)
    assert frame[5] == 0x53
    assert tuple(frame[6:10]) == (kind, fds, flags, len(topic))
    assert frame[FDS_OFFSET] == fds
    assert struct.unpack_from(">QQ", frame, 10) == (sender, correlation)
    assert frame[26:] == topic + payload
    assert msgpack.unpackb(frame) == msgpack.ExtType(83, frame[6:])


@settings(deadline=None)
@given(kinds, st.binary(max_size=255), numbers, numbers)
def test_head_is_a_frame_without_payload(kind: Kind, topic: bytes, sender: int, correlation: int) -> None:
    made = head(kind, topic, sender, correlation, fds=2, flags=1)
    assert made == encode(kind, topic=topic, sender=sender, correlation=correlation, fds=2, flags=1)
    assert len(made) == PREFIX_BYTES + len(topic)


@pytest.mark.parametrize("body", [None, 7, [1, 2, 3], {"code": "topic", "text": "é"}, {"pid": None}])
def test_control_frame_carries_one_msgpack_object(body: object) -> None:
    frame = control(Kind.ERROR, body, correlation=9, sender=4)
    assert msgpack.unpackb(frame[PREFIX_BYTES:]) == body
    assert struct.unpack_from(">QQ", frame, 10) == (4, 9)


def test_control_frame_that_cannot_be_encoded_is_a_payload_error() -> None:
    with pytest.raises(PayloadError):
        control(Kind.HELLO, {"name": "\ud800"})


@pytest.mark.parametrize(
    "fields",
    [{"kind": 256}, {"fds": 256}, {"flags": 256}, {"topic": bytes(256)}, {"sender": 1 << 64}, {"correlation": -1}],
)
def test_field_that_does_not_fit_is_never_cut_off(fields: dict[str, int]) -> None:
    with pytest.raises(struct.error):
        encode(**{"kind": Kind.PUBLISH, **fields})  # type: ignore[arg-type]


def test_sizes_are_those_of_the_specification() -> None:
    assert (MIN_FRAME, MAX_FRAME, PREFIX_BYTES, LENGTH_OFFSET) == (26, 65_536, 26, 6)
    assert "A frame is 26 to 65,536 bytes." in WIRE
    assert "20 to 65,530" in WIRE


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading."""
    _, _, section = WIRE.partition(f"\n## {heading}\n")
    rows = section.partition("\n## ")[0].splitlines()
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    return cells[2:]


def test_kinds_are_those_of_the_specification() -> None:
    assert {row[0]: int(row[1]) for row in table("Kinds")} == {kind.name: kind.value for kind in Kind}


def test_topics_stand_where_the_specification_says() -> None:
    with_topic = {row[0] for row in table("Kinds") if row[4]}
    assert {kind.name for kind in Kind if kind in TOPICAL} == with_topic


def test_flags_are_those_of_the_specification() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `0x(\w\w)` \| (.*?) \|", WIRE, re.MULTILINE)
    assert {name: int(bit, 16) for name, bit, _ in rows} == {flag.name: flag.value for flag in Flag}
    for kind in Kind:
        on = {name for name, _, kinds_ in rows if f"`{kind.name}`" in kinds_}
        assert {flag.name for flag in Flag if ALLOWED_FLAGS[kind] & flag} == on


def test_messages_start_with_publish_request_and_reply() -> None:
    assert {Kind(kind).name for kind in FORWARDED} == {"PUBLISH", "REQUEST", "REPLY"}
    assert set(ALLOWED_FLAGS) == set(Kind)
