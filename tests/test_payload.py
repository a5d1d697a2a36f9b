"""Payloads and headers to msgpack and back: what goes in comes out, and only errors of sockbus get out."""

from __future__ import annotations

import collections
import datetime
import math
import threading
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sockbus.payload
from sockbus.errors import MessageTooLarge, PayloadError
from sockbus.payload import decode_headers, decode_payload, encode_headers, encode_payload

PLENTY = {"max_bytes": 1 << 16, "max_keys": 1 << 16}

integers = st.integers(-(1 << 63), (1 << 64) - 1)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | st.text() | st.binary()
payloads = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | integers | st.binary(), inner, max_size=4),
    max_leaves=12,
)
header_values = st.text() | integers | st.floats(allow_nan=False) | st.booleans() | st.binary()
headers_of_any_kind = st.dictionaries(st.text(max_size=8), header_values, max_size=8)


def nested(depth: int) -> object:
    value: object = None
    for _ in range(depth):
        value = [value]
    return value


def circular() -> object:
    value: list[object] = []
    value.append(value)
    return value


# Payloads


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (None, "c0"),
        (False, "c2"),
        (0, "00"),
        (-1, "ff"),
        ((1 << 64) - 1, "cfffffffffffffffff"),
        (21.5, "cb4035800000000000"),
        ("é", "a2c3a9"),
        (b"\x00\xff", "c40200ff"),
        (bytearray(b"ab"), "c4026162"),
        (memoryview(b"ab"), "c4026162"),
        ([1, [2]], "92019102"),
        ((1, 2), "920102"),
        ({"c": 21}, "81a16315"),
        ({1: None}, "8101c0"),
        (collections.OrderedDict(a=1), "81a16101"),
    ],
)
def test_payload_is_plain_msgpack(payload: object, data: str) -> None:
    assert encode_payload(payload).hex() == data


@settings(deadline=None)
@given(payloads)
def test_payload_comes_out_as_it_went_in(payload: object) -> None:
    assert decode_payload(encode_payload(payload)) == payload


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (1j, "complex"),
        (datetime.date(2024, 1, 1), "datetime.date"),
        (1 << 64, "too big|out of range"),
        (-(1 << 63) - 1, "too big|out of range|small"),
        ("\ud800", "surrogates"),
        ({"key": {"inner": object()}}, "object"),
        (nested(2000), "recursion|deep|nest"),
        (circular(), "recursion|deep|nest"),
    ],
)
def test_what_msgpack_does_not_take_is_named(payload: object, reason: str) -> None:
    with pytest.raises(PayloadError, match=f"(?i)cannot be encoded: .*({reason})") as caught:
        encode_payload(payload)
    assert isinstance(caught.value, TypeError)
    assert "\n" not in str(caught.value)
    # What was packed before the error is not left in front of the next payload.
    assert encode_payload([1]) == b"\x91\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x01\x02",
        b"\xa1\xff",
        b"\x81\x90\x01",
        b"\x81\x80\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xd6\xff",
        b"\xc7\x05\xff12345",
        b"\x91" * 5000 + b"\xc0",
    ],
)
def test_what_is_not_msgpack_is_a_payload_error(data: bytes) -> None:
    with pytest.raises(PayloadError, match=f"payload of {len(data)} bytes is not valid msgpack"):
        decode_payload(data)


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_a_payload_error(data: bytes) -> None:
    try:
        value = decode_payload(data)
    except PayloadError:
        return
    assert repr(value) == repr(msgpack.unpackb(data, raw=False, strict_map_key=False))


def test_threads_do_not_share_a_packer() -> None:
    packers = [sockbus.payload._local.pack]

    def note() -> None:
        packers.append(sockbus.payload._local.pack)

    thread = threading.Thread(target=note)
    thread.start()
    thread.join()
    assert packers[0] != packers[1]


def test_packer_with_a_large_buffer_is_not_kept() -> None:
    encode_payload(b"small")
    before = sockbus.payload._local.pack
    encode_payload(bytes(1000))
    assert sockbus.payload._local.pack is before
    large = encode_payload(bytes(2 << 20))
    assert len(large) == (2 << 20) + 5
    assert sockbus.payload._local.pack is not before
    assert encode_payload(1) == b"\x01"


# Headers


@settings(deadline=None)
@given(headers_of_any_kind)
def test_headers_come_out_as_they_went_in(headers: dict[str, Any]) -> None:
    data = encode_headers(headers, **PLENTY)
    assert decode_headers(data, 8) == headers
    assert msgpack.unpackb(data) == headers


def test_header_values_keep_their_types() -> None:
    headers = {"text": "1", "int": 1, "float": 1.0, "bool": True, "bytes": b"1", "nan": math.nan}
    decoded = decode_headers(encode_headers(headers, **PLENTY), 6)
    assert {key: type(value) for key, value in decoded.items()} == {key: type(v) for key, v in headers.items()}


@pytest.mark.parametrize(
    "headers",
    [
        {1: "a"},
        {b"a": "a"},
        {None: "a"},
        {"a": None},
        {"a": []},
        {"a": {}},
        {"a": ("b",)},
        {"a": object()},
        {"a": bytearray(b"b")},
        {"a": 1 << 64},
        {"a": "\ud800"},
        {"\ud800": "a"},
        ["a"],
        "a",
        5,
        None,
    ],
)
def test_headers_of_other_types_are_refused(headers: Any) -> None:
    with pytest.raises(PayloadError, match="header"):
        encode_headers(headers, **PLENTY)


@pytest.mark.parametrize(("count", "refused"), [(31, False), (32, False), (33, True)])
def test_header_keys_are_limited(count: int, refused: bool) -> None:
    headers = {str(number): number for number in range(count)}
    if refused:
        with pytest.raises(MessageTooLarge, match=r"33 headers exceed header_keys = 32; .*--limit header_keys=N"):
            encode_headers(headers, 4096, 32)
        with pytest.raises(PayloadError, match=r"at most 32 keys"):
            decode_headers(msgpack.packb(headers), 32)
    else:
        assert decode_headers(encode_headers(headers, 4096, 32), 32) == headers


@pytest.mark.parametrize(("size", "refused"), [(99, False), (100, False), (101, True)])
def test_header_bytes_are_limited(size: int, refused: bool) -> None:
    headers = {"k": bytes(size - 5)}  # 1 for the map, 2 for the key, 2 in front of the value
    if refused:
        with pytest.raises(MessageTooLarge, match=r"101 bytes exceed header_bytes = 100; .*--limit header_bytes=N"):
            encode_headers(headers, 100, 32)
    else:
        assert len(encode_headers(headers, 100, 32)) == size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x01",
        b"\xa0",
        b"\x90",
        b"\x91\x80",
        b"\x80\x80",
        b"\x81\xa1a",
        b"\x81\xa1a\xc0",
        b"\x81\xa1a\x90",
        b"\x81\xa1a\x80",
        b"\x81\xa1a\x91\x01",
        b"\x81\xa1a\x81\xa1b\x01",
        b"\x81\xa1a\xd4\x05\x00",
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",
        b"\x81\xa1a\xc7\x00\x05",
        b"\x81\x01\x01",
        b"\x81\xc4\x01a\x01",
        b"\x81\xc0\x01",
        b"\x81\xa1\xff\x01",
        b"\x81\xa1a\xa1\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xde\xff\xff\xa1a\x01",
        b"\x81\xa1a" * 2000,
        b"\xc1",
    ],
)
def test_hostile_headers_are_a_payload_error(data: bytes) -> None:
    with pytest.raises(PayloadError, match="header"):
        decode_headers(data, 32)


@settings(deadline=None)
@given(st.binary(max_size=40) | headers_of_any_kind.map(msgpack.packb).map(lambda data: data[:-1]))
def test_any_bytes_are_headers_or_a_payload_error(data: bytes) -> None:
    try:
        headers = decode_headers(data, 4)
    except PayloadError:
        return
    assert len(headers) <= 4
    assert all(type(key) is str for key in headers)
    assert {type(value) for value in headers.values()} <= {str, int, float, bool, bytes}
