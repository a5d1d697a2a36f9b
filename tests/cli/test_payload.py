"""Payloads from the command line to the bus and back to people."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import pytest

from sockbus.cli import payload
from sockbus.cli.outcome import Failure, UsageError
from sockbus.message import Message, Peer
from sockbus.payload import encode_payload

PEER = Peer(7, "tester", "stream", 1000, 1000, 4711)


def message(value: object, **options: Any) -> Message:
    return Message("a.b", encode_payload(value), PEER, **options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ('"text"', "text"),
        ('{"a": [1, "b"]}', {"a": [1, "b"]}),
        (" [1] ", [1]),
        ("", ""),
        ("hello world", "hello world"),
        ("{'a': 1}", "{'a': 1}"),
        ("NaN", "NaN"),
        ("[Infinity]", "[Infinity]"),
        ("0x10", "0x10"),
        ("9" * 5000, "9" * 5000),  # more digits than Python turns into a number
    ],
)
def test_payload_is_json_where_it_parses_as_json(text: str, value: object) -> None:
    found = payload.parse(text)
    assert (found, type(found)) == (value, type(value))
    assert payload.read(text, as_bytes=False) == value


def test_no_payload_is_none() -> None:
    assert payload.read(None, as_bytes=False) is None
    assert payload.read(None, as_bytes=True) is None


def test_raw_argument_is_its_bytes() -> None:
    assert payload.read("5\udcff", as_bytes=True) == b"5\xff"


def test_argument_that_is_not_utf8_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--raw"):
        payload.read("5\udcff", as_bytes=False)


def test_json_nested_beyond_reason_is_refused() -> None:
    with pytest.raises(Failure, match="nested"):
        payload.parse("[" * 100_000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=v", "v"),
        ("k=", ""),
        ("k=a=b", "a=b"),
        ("k=5", 5),
        ("k=2.5", 2.5),
        ("k=true", True),
        ('k="5"', "5"),
        ("k=null", "null"),
        ("k=[1]", "[1]"),
        ("k=NaN", "NaN"),
    ],
)
def test_header_is_a_json_scalar_or_text(text: str, value: object) -> None:
    key, found = payload.header(text)
    assert (key, found, type(found)) == ("k", value, type(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("line\nfeed \x1b[31m", "line\\nfeed \\u001b[31m"),
        ("5", "5"),
        (5, "5"),
        (None, "null"),
        (True, "true"),
        ({"ä": [1, 2.5, "x"]}, '{"ä": [1, 2.5, "x"]}'),
        ({"k\x1b": "v\u202e"}, '{"k\\u001b": "v\\u202e"}'),
        (b"\x00\xffab'", 'b"\\x00\\xffab\'"'),
        ([b"\x00"], '[{"base64": "AA=="}]'),
        ([math.nan, math.inf, -math.inf], '["NaN", "Infinity", "-Infinity"]'),
        (msgpack.ExtType(5, b"ab"), '{"ext": 5, "base64": "YWI="}'),
        (msgpack.Timestamp(1, 0), '{"ext": -1, "base64": "AAAAAQ=="}'),
    ],
)
def test_payload_is_shown_to_people(value: object, text: str) -> None:
    shown = payload.human(message(value))
    assert shown == text
    assert "\n" not in shown


def test_keys_that_are_no_strings_become_their_json_text() -> None:
    shown = json.loads(payload.human(message({7: "a", None: "b", 2.5: "d", b"x": "e"})))
    assert shown == {"7": "a", "null": "b", "2.5": "d", '{"base64": "eA=="}': "e"}


def test_reply_keeps_its_lines() -> None:
    assert payload.human(message("a\nb\x1b"), lines=True) == "a\nb\\u001b"


@pytest.mark.parametrize(
    ("value", "data"),
    [(b"\x00\n", b"\x00\n"), ("ä\x1b", "ä\x1b".encode()), ({"a": b"x"}, b'{"a": {"base64": "eA=="}}'), (None, b"null")],
)
def test_raw_payload_has_nothing_added(value: object, data: bytes) -> None:
    assert payload.raw(message(value)) == data


def test_json_line_is_the_whole_message() -> None:
    line = payload.json_line(message({"a\n": 1}, headers=encode_payload({"h": b"x", "n": 1}), lost=2, fds_missing=3))
    assert "\n" not in line
    assert json.loads(line) == {
        "topic": "a.b",
        "payload": {"a\n": 1},
        "headers": {"h": {"base64": "eA=="}, "n": 1},
        "sender": {"id": 7, "name": "tester", "transport": "stream", "uid": 1000, "gid": 1000, "pid": 4711},
        "fds": [],
        "fds_missing": 3,
        "lost": 2,
        "retained": False,
        "interrupted": False,
    }


@pytest.mark.parametrize("show", [payload.human, payload.json_line, lambda each: payload.raw(each).decode()])
@pytest.mark.parametrize("data", [b"\xc1", b"", b"\x91" * 1000 + b"\xc0"], ids=["invalid", "empty", "deep"])
def test_payload_that_cannot_be_shown_is_shown_as_its_bytes_with_one_complaint(
    data: bytes, show: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    shown = json.loads(show(Message("a.b", data, PEER)))
    assert list(shown.get("payload", shown)) == ["msgpack"]
    assert capfdbinary.readouterr().err.count(b"\n") == 1


@pytest.mark.parametrize(
    ("data", "value"), [(b"5\n", 5), (b"text\n\n", "text\n"), (b"\xff\n", b"\xff\n"), (b"", ""), (b'"a', '"a')]
)
def test_output_of_a_program_is_a_payload(data: bytes, value: object) -> None:
    assert payload.from_output(data, as_bytes=False) == value
    assert payload.from_output(data, as_bytes=True) == data
