"""The vectors of docs/wire.md, both ways: fields to bytes, bytes to fields, and hostile bytes to errors.

``written`` builds the bytes once more with struct and msgpack alone, so that the vectors do not merely say what
``sockbus.protocol`` does.
"""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest

from sockbus.errors import ProtocolError, SockbusError
from sockbus.fd import close_fds, closing_settled
from sockbus.payload import decode_headers, encode_headers, encode_payload
from sockbus.protocol.frame import FORWARDED, Flag, Kind, control, encode
from sockbus.protocol.inbox import Inbox, Run
from sockbus.protocol.pieces import Assembly, cut

ROOT = Path(__file__).resolve().parent.parent
Vector = dict[str, Any]


def vectors(file: str) -> list[Any]:
    found = json.loads((ROOT / "tests" / "vectors" / f"{file}.json").read_text())
    return [pytest.param(vector, id=f"{file}-{vector['name']}") for vector in found]


GOOD = [*vectors("frames"), *vectors("headers"), *vectors("pieces")]
HOSTILE = vectors("hostile")


def value(written: Any) -> Any:
    """JSON has no binaries: they stand as {"$bin": hex}."""
    if isinstance(written, dict):
        if set(written) == {"$bin"}:
            return bytes.fromhex(written["$bin"])
        return {key: value(inner) for key, inner in written.items()}
    return [value(inner) for inner in written] if isinstance(written, list) else written


def flags_of(frame: Vector) -> int:
    return sum({"HEADERS": 1, "PIECED": 2, "FAILED": 4, "RECEIPT": 8, "RETAIN": 16}[name] for name in frame["flags"])


def written(frame: Vector) -> bytes:
    """The bytes of a frame, by the table in docs/wire.md."""
    topic = frame["topic"].encode()
    behind = b""
    if "total" in frame:
        behind += struct.pack(">Q", frame["total"])
    if "headers" in frame:
        headers = msgpack.packb(value(frame["headers"]))
        behind += struct.pack(">H", len(headers)) + headers
    behind += bytes.fromhex(frame["part"]) if "part" in frame else msgpack.packb(value(frame["body"]))
    data = struct.pack(">BBBB", Kind[frame["kind"]].value, frame["fds"], flags_of(frame), len(topic))
    data += struct.pack(">QQ", frame["sender"], frame["correlation"]) + topic + behind
    return b"\xc9" + struct.pack(">I", len(data)) + b"\x53" + data


def encoded(frame: Vector) -> bytes:
    """The bytes of a frame, by sockbus."""
    kind, topic = Kind[frame["kind"]], frame["topic"].encode()
    numbers = {"sender": frame["sender"], "correlation": frame["correlation"]}
    if kind not in FORWARDED and "part" not in frame:
        return control(kind, value(frame["body"]), topic=topic, flags=flags_of(frame), **numbers)
    headers = encode_headers(value(frame["headers"]), 4096, 32) if "headers" in frame else b""
    if "part" not in frame:
        flags = flags_of(frame)
        (whole,) = cut(
            kind,
            topic,
            encode_payload(value(frame["body"])),
            headers=headers,
            fds=frame["fds"],
            flags=flags & ~Flag.HEADERS,
            **numbers,
        )
        return whole
    front = frame["total"].to_bytes(8, "big") if "total" in frame else b""
    front += len(headers).to_bytes(2, "big") + headers if headers else b""
    return encode(
        kind,
        topic=topic,
        payload=front + bytes.fromhex(frame["part"]),
        fds=frame["fds"],
        flags=flags_of(frame),
        **numbers,
    )


def data_of(vector: Vector) -> list[bytes]:
    return [bytes.fromhex(frame["hex"]) for frame in vector["frames"]]


def read(frames: list[bytes], nfds: list[int], **options: Any) -> list[Run]:
    """The frames one by one, each with so many descriptors; they are closed."""
    inbox = Inbox(**{"carries_fds": True, "max_fds": 16, **options})
    runs: list[Run] = []
    try:
        for data, count in zip(frames, nfds, strict=True):
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
            for run in inbox.receive(data, fds):
                runs.append(run)
                close_fds(run.fds)
        inbox.end()
    finally:
        inbox.close()
        assert closing_settled(30)
    return runs


def test_every_kind_has_a_vector() -> None:
    shown = {frame["kind"] for parameter in GOOD for frame in parameter.values[0]["frames"]}
    assert shown == {kind.name for kind in Kind}


def test_every_flag_and_code_of_frames_has_a_vector() -> None:
    flags = {flag for parameter in GOOD for frame in parameter.values[0]["frames"] for flag in frame["flags"]}
    assert flags == {flag.name for flag in Flag}
    assert {parameter.values[0]["code"] for parameter in HOSTILE} == {
        "protocol",
        "payload",
        "too-large",
        "too-many-fds",
    }


@pytest.mark.parametrize("vector", GOOD)
def test_fields_are_written_as_these_bytes(vector: Vector) -> None:
    assert [written(frame).hex() for frame in vector["frames"]] == [frame["hex"] for frame in vector["frames"]]
    assert [encoded(frame).hex() for frame in vector["frames"]] == [frame["hex"] for frame in vector["frames"]]


@pytest.mark.parametrize("vector", GOOD)
def test_every_frame_is_one_legal_msgpack_object(vector: Vector) -> None:
    unpacker = msgpack.Unpacker()
    for data in data_of(vector):
        assert msgpack.unpackb(data) == msgpack.ExtType(83, data[6:])
        unpacker.feed(data)
    assert [each.code for each in unpacker] == [83] * len(vector["frames"])


@pytest.mark.parametrize("vector", GOOD)
def test_bytes_are_read_as_these_fields(vector: Vector) -> None:
    frames = vector["frames"]
    runs = read(data_of(vector), [frame["fds"] for frame in frames])
    for run, frame in zip(runs, frames, strict=True):
        assert (Kind(run.kind).name, run.topic.decode(), run.sender, run.correlation, run.flags, len(run.fds)) == (
            frame["kind"],
            frame["topic"],
            frame["sender"],
            frame["correlation"],
            flags_of(frame),
            frame["fds"],
        )
        body = run.body
        if run.kind in FORWARDED:
            total, headers, at = run.parts()
            body = run.buffer[at : run.end]
            assert total == frame.get("total", len(body))
            if "headers" in frame:
                assert decode_headers(headers, 32) == value(frame["headers"])
        if "part" in frame:
            assert body.hex() == frame["part"]
        else:
            assert msgpack.unpackb(body, strict_map_key=False) == value(frame["body"])


@pytest.mark.parametrize("vector", vectors("pieces"))
def test_pieces_come_together_as_one_payload(vector: Vector) -> None:
    frames = vector["frames"]
    runs = read(data_of(vector), [frame["fds"] for frame in frames])
    first = runs[0]
    assembly = Assembly(first, *first.parts())
    pieces = [run for run in runs if run.kind == Kind.PIECE]
    assert {(piece.sender, piece.correlation) for piece in pieces} == {(first.sender, first.correlation)}
    assert [assembly.add(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    parts = [frame["part"] for frame in frames if "part" in frame]
    assert assembly.payload().hex() == "".join(parts)
    msgpack.unpackb(assembly.payload())


def understand(runs: list[Run]) -> None:
    """What a broker does with frames that an inbox let through, as far as a single frame can be wrong."""
    started: dict[tuple[int, int], Assembly] = {}
    for run in runs:
        key = (run.sender, run.correlation)
        if run.kind in FORWARDED:
            total, headers, at = run.parts()
            if run.flags & Flag.HEADERS:
                decode_headers(headers, 32)
            if run.flags & Flag.PIECED:
                started[key] = Assembly(run, total, headers, at)
        elif run.kind == Kind.PIECE:
            if key not in started:
                raise ProtocolError("a piece came of a message that was not started")
            started[key].add(run)


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("vector", HOSTILE)
def test_hostile_bytes_are_an_error_with_this_code(vector: Vector, bytewise: bool) -> None:
    data = b"".join(map(bytes.fromhex, vector["frames"]))
    chunks = [data[at : at + 1] for at in range(len(data))] if bytewise else [data]
    nfds = [vector["attached"]] + [0] * (len(chunks) - 1)
    with pytest.raises(SockbusError) as caught:
        understand(read(chunks, nfds, carries_fds=vector["carries_fds"]))
    assert caught.value.code == vector["code"]


def examples() -> list[tuple[str, list[str]]]:
    """The examples in the specification: their names, and the hex of their frames as it stands at the left."""
    _, _, section = (ROOT / "docs" / "wire.md").read_text().partition("\n## Vectors\n")
    found = []
    for name, block in re.findall(r"^\*\*(.+?)\*\*.*?\n+```text\n(.*?)```", section, re.MULTILINE | re.DOTALL):
        lines = [re.match(r"(?:[0-9A-F]{2,} ?)*", line) for line in block.splitlines()]
        data = bytes.fromhex("".join(line[0] for line in lines if line))
        frames = []
        while data:
            size = int.from_bytes(data[1:5], "big") + 6
            frames.append(data[:size].hex())
            data = data[size:]
        found.append((name, frames))
    return found


def test_examples_of_the_specification_are_vectors() -> None:
    known = {
        tuple(frame["hex"] for frame in vector["frames"]): vector["name"] for vector in (p.values[0] for p in GOOD)
    }
    assert {name: known.get(tuple(frames)) for name, frames in examples()} == {
        "SUBSCRIBE": "subscribe",
        "PUBLISH": "publish",
        "DELIVER and PUBLISH": "delivery",
        "CREDIT": "credit",
        "PUBLISH with a file descriptor": "publish with a file descriptor",
        "PUBLISH in pieces": "two pieces",
    }
