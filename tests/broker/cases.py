"""The table of bad input: what a peer sends, and the code of the ERROR that it is sent away with.

A row's steps are made for the peer that sends them, for it knows its number. Each step is one ``sendmsg``: bytes, bytes
with descriptors (``With``), or ``SHUTDOWN``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from sockbus.protocol.frame import MAX_FRAME, PREFIX, Flag, Kind, control, encode
from tests.broker.raw import SHUTDOWN, Raw, hello, pieced, with_headers

__all__ = ["CASES", "Case", "Step", "With", "padded_hello"]

UNIX = ("seqpacket", "stream")
STREAMS = ("stream", "tcp")
ANY = ("seqpacket", "stream", "tcp")
TOPIC = "bad.input"


@dataclass(frozen=True, slots=True)
class With:
    """Bytes with so many files, or with the peer's own socket."""

    data: bytes
    files: int = 0
    own_socket: bool = False


Step = bytes | With
Build = Callable[[Raw], Sequence[Step]]


@dataclass(frozen=True, slots=True)
class Case:
    """One row. ``code`` None: the connection is closed without an ERROR, and without a line in the log."""

    name: str
    build: Build
    code: str | None = "protocol"
    greet: bool = True
    on: Sequence[str] = ANY


def _before() -> Iterator[Case]:
    """What comes before the handshake is done."""

    def case(name: str, *steps: bytes, code: str | None = "protocol", on: Sequence[str] = ANY) -> Case:
        return Case(f"before the handshake: {name}", lambda _: steps, code, greet=False, on=on)

    yield case("version 2", hello(version=2), code="version")
    yield case("version 0", hello(version=0), code="version")
    yield case("no version", hello(version=None))
    yield case("the version as text", hello(version="1"))
    yield case("the version as true", hello(version=True))
    yield case("an empty name", hello(name=""))
    yield case("a name of 256 bytes", hello(name="n" * 256))
    yield case("a name with a line feed", hello(name="good\nWARNING bad"))
    yield case("a name that is a number", hello(name=7))
    yield case("features that are numbers", hello(features=[1]))
    yield case("features that are no array", control(Kind.HELLO, {"version": 1, "features": "fds", "name": None}))
    yield case("a body that is nil", control(Kind.HELLO))
    yield case("a body that is no map", control(Kind.HELLO, ["version", 1]))
    yield case("a body with a number as key", control(Kind.HELLO, {1: 1}))
    yield case("a body that is not msgpack", encode(Kind.HELLO, payload=b"\xc1"))
    yield case("no body", encode(Kind.HELLO))
    yield case("more than one body", encode(Kind.HELLO, payload=msgpack.packb({"version": 1}) * 2))
    yield case("a body nested 2,000 deep", encode(Kind.HELLO, payload=b"\x91" * 2000 + b"\xc0"))
    yield case("a map of four billion", encode(Kind.HELLO, payload=b"\xdf\xff\xff\xff\xff"))
    yield case("HELLO of 4,097 bytes", padded_hello(4097), code="too-large")
    yield case("a length of 4 GiB", PREFIX.pack(0xC9, 0xFFFFFFFF, 83, 1, 0, 0, 0, 0, 0), code="too-large")
    yield case("a length of 0", PREFIX.pack(0xC9, 0, 83, 1, 0, 0, 0, 0, 0))
    yield case("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    yield case("one wrong byte", b"\xc8")
    yield case("zeros", bytes(4096))
    yield case("a megabyte of garbage", b"\x17" * MAX_FRAME * 16, on=STREAMS)
    yield case("other ext type", b"\xc9" + (20).to_bytes(4, "big") + b"\x54" + bytes(20))
    yield case("PUBLISH", encode(Kind.PUBLISH, topic=b"bad.input", payload=b"\xc0"))
    yield case("SUBSCRIBE", control(Kind.SUBSCRIBE, {"credit": [1, 1, 1], "fds": "strip"}, correlation=1, topic=b"a"))
    yield case("GOODBYE", control(Kind.GOODBYE, {"text": "left"}))
    yield case("WELCOME", control(Kind.WELCOME, {}))
    yield case("HELLO of another sender", control(Kind.HELLO, {"version": 1}, sender=1))
    yield case("HELLO twice", hello() + hello())
    yield case("HELLO and a frame of nobody", hello() + encode(Kind.PUBLISH, topic=b"bad.input", payload=b"\xc0"))
    yield case("HELLO that declares fds", encode(Kind.HELLO, fds=1, payload=b"\xc0"))
    yield case("half of HELLO and the end", hello()[:30], SHUTDOWN, on=STREAMS)
    yield case("half of a prefix and the end", hello()[:9], SHUTDOWN, on=STREAMS)
    yield case("a record with half of HELLO", hello()[:30], on=("seqpacket",))
    yield case("a record with half of a prefix", hello()[:9], on=("seqpacket",))
    yield case("a record of 65,537 bytes", bytes(MAX_FRAME + 1), on=("seqpacket",))
    yield case("nothing", SHUTDOWN, code=None)


def padded_hello(size: int) -> bytes:
    frame = hello(padding="")
    # A text of up to 65,535 bytes has two bytes of length more than one of up to 31.
    frame = hello(padding="x" * (size - len(frame) - 2))
    assert len(frame) == size
    return frame


def _layout() -> Iterator[Case]:
    """What the prefix of a frame shows."""

    def case(name: str, build: Build, code: str | None = "protocol", on: Sequence[str] = ANY) -> Case:
        return Case(name, build, code, on=on)

    def publish(peer: Raw, **values: Any) -> bytes:
        return peer.frame(Kind.PUBLISH, TOPIC, **values)

    yield case(
        "a length of 4 GiB", lambda p: [PREFIX.pack(0xC9, 0xFFFFFFFF, 83, 32, 0, 0, 0, p.number, 0)], "too-large"
    )
    yield case(
        "a frame of 65,537 bytes", lambda p: [PREFIX.pack(0xC9, 65_531, 83, 32, 0, 0, 0, p.number, 0)], "too-large"
    )
    yield case("a length less than the prefix", lambda p: [PREFIX.pack(0xC9, 19, 83, 32, 0, 0, 0, p.number, 0)])
    yield case("garbage", lambda p: [b"\x00garbage"])
    yield case("garbage behind a frame", lambda p: [publish(p) + b"\x00garbage"])
    yield case("a topic beyond its frame", lambda p: [PREFIX.pack(0xC9, 21, 83, 32, 0, 0, 9, p.number, 0) + b"a"])
    yield case("a forged sender", lambda p: [publish(p, sender=p.number + 1)])
    yield case("sender 0", lambda p: [publish(p, sender=0)])
    yield case("a forged sender in a run", lambda p: [publish(p) * 3 + publish(p, sender=1 << 63)])
    yield case("a second HELLO", lambda p: [control(Kind.HELLO, {"version": 1}, sender=p.number)])
    yield case("a second HELLO of sender 0", lambda p: [hello()])
    for kind in (0, 6, 21, 53, 255):
        yield case(f"unknown kind {kind}", lambda p, kind=kind: [encode(kind, sender=p.number, payload=b"\xc0")])
    for kind in Kind:
        if kind.name in ("WELCOME", "ERROR", "OK", "RECEIPT", "DELIVER", "CALL", "ANSWER", "WINDOW", "PEER", "GONE"):
            yield case(f"{kind.name} from a client", lambda p, kind=kind: [p.control(kind, [1], correlation=1)])
    for bit in (0x10, 0x20, 0x40, 0x80, Flag.FAILED):
        yield case(f"flag 0x{bit:02x} on PUBLISH", lambda p, bit=bit: [publish(p, correlation=1, flags=bit)])
    yield case("a receipt of a request", lambda p: [p.frame(Kind.REQUEST, TOPIC, correlation=1, flags=Flag.RECEIPT)])
    yield case("headers on FLUSH", lambda p: [p.frame(Kind.FLUSH, correlation=1, flags=Flag.HEADERS)])
    yield case("a flag on PIECE", lambda p: [p.frame(Kind.PIECE, correlation=1, flags=Flag.PIECED)])
    yield case("a receipt without a number", lambda p: [publish(p, flags=Flag.RECEIPT)])
    yield case("a topic on CREDIT", lambda p: [p.frame(Kind.CREDIT, "a", b"\x93\0\0\0", correlation=1)])
    yield case("half a frame and the end", lambda p: [publish(p)[:-1], SHUTDOWN], on=STREAMS)
    yield case("one byte of a frame and the end", lambda p: [publish(p) + b"\xc9", SHUTDOWN], on=STREAMS)
    yield case("a record that ends inside a frame", lambda p: [publish(p) * 2 + publish(p)[:-1]], on=("seqpacket",))
    yield case("a record of 65,537 bytes", lambda p: [publish(p) + bytes(MAX_FRAME)], on=("seqpacket",))
    yield case("GOODBYE and more", lambda p: [p.control(Kind.GOODBYE, {"text": ""}) + b"\0garbage"], None)
    yield case("the end", lambda p: [SHUTDOWN], None)


def _topics() -> Iterator[Case]:
    """Topics, patterns and headers."""

    def case(name: str, build: Build, code: str = "topic") -> Case:
        return Case(name, build, code)

    bad = {
        "not UTF-8": b"a.\xff\xfe",
        "an overlong form": b"a.\xc0\xae",
        "a surrogate": b"a.\xed\xa0\x80",
        "empty": b"",
        "an empty token": b"a..b",
        "a final dot": b"a.",
        "white space": b"a b",
        "a control character": b"a\x00b",
        "33 tokens": b".".join([b"a"] * 33),
        "a wildcard inside a token": b"a*b",
    }
    for name, topic in bad.items():
        yield case(f"PUBLISH on {name}", lambda p, topic=topic: [p.frame(Kind.PUBLISH, topic)])
        yield case(f"REQUEST on {name}", lambda p, topic=topic: [p.frame(Kind.REQUEST, topic, correlation=1)])
        yield case(f"SUBSCRIBE to {name}", lambda p, topic=topic: [_arranged(p, Kind.SUBSCRIBE, topic)])
        yield case(f"SERVE {name}", lambda p, topic=topic: [_arranged(p, Kind.SERVE, topic)])
    for name, topic in (("*", b"a.*"), (">", b"a.>")):
        yield case(f"PUBLISH on a pattern with {name}", lambda p, topic=topic: [p.frame(Kind.PUBLISH, topic)])
        yield case(
            f"REQUEST on a pattern with {name}", lambda p, topic=topic: [p.frame(Kind.REQUEST, topic, correlation=1)]
        )
    yield case("SUBSCRIBE with > inside", lambda p: [_arranged(p, Kind.SUBSCRIBE, b"a.>.b")])
    yield case("PUBLISH on $SYS", lambda p: [p.frame(Kind.PUBLISH, "$SYS.status")], "permission")
    yield case("a large PUBLISH on $SYS", lambda p: [_first(p, topic="$SYS.status")], "permission")
    yield case("SERVE on $SYS", lambda p: [_arranged(p, Kind.SERVE, b"$SYS.status")], "permission")

    good = {"k": 1}
    headers: dict[str, tuple[object, str]] = {
        "of 4,097 bytes": ({"k": "x" * 4092}, "too-large"),
        "of 33 keys": ({f"{i:02}": i for i in range(33)}, "payload"),
        "with a map inside": ({"k": {}}, "payload"),
        "with an array inside": ({"k": []}, "payload"),
        "with nil": ({"k": None}, "payload"),
        "with an ext": ({"k": msgpack.ExtType(5, b"x")}, "payload"),
        "with a time": ({"k": msgpack.Timestamp(1)}, "payload"),
        "with a number as key": ({1: 1}, "payload"),
        "with a binary as key": ({b"k": 1}, "payload"),
        "that are no map": ([1], "payload"),
        "that are not msgpack": (b"\xc1", "payload"),
        "with more behind": (msgpack.packb(good) * 2, "payload"),
        "that end inside": (msgpack.packb(good)[:-1], "payload"),
        "of no bytes": (b"", "payload"),
        "with text that is not UTF-8": (b"\x81\xa1k\xa2\xff\xfe", "payload"),
        "that state more keys than they have": (b"\xdf\xff\xff\xff\xff", "payload"),
    }
    for name, (values, code) in headers.items():
        content = with_headers(values)
        for kind in (Kind.PUBLISH, Kind.REQUEST):
            yield case(f"headers of {kind.name} {name}", lambda p, c=content, kind=kind: [_flagged(p, kind, c)], code)
    yield case("headers beyond their frame", lambda p: [_flagged(p, Kind.PUBLISH, b"\x00\x09\x80")], "payload")
    yield case("headers without a length", lambda p: [_flagged(p, Kind.PUBLISH, b"\x00")], "payload")


def _arranged(peer: Raw, kind: Kind, topic: bytes) -> bytes:
    values = {"concurrency": 1} if kind is Kind.SERVE else {"group": None, "credit": [1, 1, 1], "fds": "strip"}
    return control(kind, values, correlation=1, sender=peer.number, topic=topic)


def _flagged(peer: Raw, kind: Kind, content: bytes) -> bytes:
    return peer.frame(kind, TOPIC, content, correlation=1, flags=Flag.HEADERS)


def _first(peer: Raw, total: int = 100, part: bytes = b"x" * 10, kind: Kind = Kind.PUBLISH, **more: Any) -> bytes:
    values = {"topic": TOPIC, "correlation": 1, "flags": Flag.PIECED, **more}
    return peer.frame(kind, payload=pieced(total, part), **values)


def _piece(peer: Raw, part: bytes = b"x" * 10, correlation: int = 1) -> bytes:
    return peer.frame(Kind.PIECE, payload=part, correlation=correlation)


def _pieces() -> Iterator[Case]:
    """Messages whose parts do not add up."""

    def case(name: str, build: Build, code: str | None = "protocol") -> Case:
        return Case(name, build, code)

    yield case("pieces without a number", lambda p: [_first(p, correlation=0)])
    yield case("a piece of nothing", lambda p: [_piece(p)])
    yield case("a piece of another message", lambda p: [_first(p), _piece(p, correlation=3)])
    yield case("a piece too much", lambda p: [_first(p), _piece(p, b"x" * 91)])
    yield case("a piece behind the last", lambda p: [_first(p), _piece(p, b"x" * 90), _piece(p)])
    yield case("an empty piece", lambda p: [_first(p), _piece(p, b"")])
    yield case("a total that the first frame holds", lambda p: [_first(p, 10)])
    yield case("a total below what the first frame holds", lambda p: [_first(p, 9)])
    yield case("a total of 0", lambda p: [_first(p, 0)])
    yield case("a first frame without payload", lambda p: [_first(p, part=b"")])
    yield case("a first frame without a total", lambda p: [p.frame(Kind.PUBLISH, TOPIC, b"", 1, flags=Flag.PIECED)])
    yield case("a total of 2**64 - 1", lambda p: [_first(p, (1 << 64) - 1)], "too-large")
    yield case("a total beyond message_bytes", lambda p: [_first(p, (64 << 20) + 1)], "too-large")
    yield case("more pieces than a message may have", lambda p: [_first(p), *[_piece(p, b"x")] * 17])
    yield case("PUBLISH between pieces", lambda p: [_first(p), p.frame(Kind.PUBLISH, TOPIC)])
    yield case("a large PUBLISH between pieces", lambda p: [_first(p), _first(p, correlation=3)])
    yield case("a message that starts again", lambda p: [_first(p), _first(p)])
    request = {"kind": Kind.REQUEST}
    yield case("a request that starts again", lambda p: [_first(p, **request), _first(p, **request)])
    yield case("a publish with a request's number", lambda p: [_first(p, **request), _first(p, 60 << 20)])
    yield case(
        "a request with the number of one in pieces",
        lambda p: [
            _serving(p),
            _first(p, **request),
            p.frame(Kind.REQUEST, TOPIC, correlation=1),
            _piece(p, b"x" * 90),
        ],
    )
    yield case("the end between pieces", lambda p: [_first(p), SHUTDOWN], None)


def _serving(peer: Raw, number: int = 901, concurrency: int = 1) -> bytes:
    return peer.control(Kind.SERVE, {"concurrency": concurrency}, correlation=number, topic=TOPIC)


def _descriptors() -> Iterator[Case]:
    """Descriptors that are not as declared."""

    def case(name: str, build: Build, code: str = "protocol", on: Sequence[str] = UNIX) -> Case:
        return Case(name, build, code, on=on)

    def publish(peer: Raw, fds: int, kind: Kind = Kind.PUBLISH, **more: Any) -> bytes:
        return peer.frame(kind, TOPIC, fds=fds, **more)

    yield case("fewer fds than declared", lambda p: [With(publish(p, 2), 1)])
    yield case("more fds than declared", lambda p: [With(publish(p, 1), 2)])
    yield case("declared fds that do not come", lambda p: [publish(p, 1)])
    yield case("fds that no frame declares", lambda p: [With(publish(p, 0), 1)])
    yield case("fds behind a frame that declares none", lambda p: [publish(p, 0), With(publish(p, 0), 3)])
    yield case("fds with FLUSH", lambda p: [With(p.control(Kind.FLUSH, correlation=1), 1)])
    yield case("FLUSH that declares fds", lambda p: [With(p.frame(Kind.FLUSH, correlation=1, fds=1), 1)])
    yield case(
        "PIECE that declares fds",
        lambda p: [_first(p), With(p.frame(Kind.PIECE, payload=b"x", correlation=1, fds=1), 1)],
    )
    yield case("SUBSCRIBE that declares fds", lambda p: [With(p.frame(Kind.SUBSCRIBE, TOPIC, fds=1), 1)])
    yield case("16 fds that no frame declares", lambda p: [With(publish(p, 0), 16)])
    yield case("253 fds that no frame declares", lambda p: [With(publish(p, 0), 253)], "too-many-fds")
    yield case("17 fds", lambda p: [With(publish(p, 17), 17)], "too-many-fds")
    yield case("253 fds", lambda p: [With(publish(p, 253), 253)], "too-many-fds")
    yield case("253 fds with the first byte of a frame", lambda p: [With(b"\xc9", 253)], "too-many-fds")
    yield case("fds with half a frame", lambda p: [With(publish(p, 1)[:30], 1), SHUTDOWN], on=("stream",))
    yield case("fds on a link without them", lambda p: [publish(p, 1)], "too-many-fds", on=("tcp",))
    yield case(
        "a request with fds on a link without them",
        lambda p: [publish(p, 1, Kind.REQUEST, correlation=1)],
        "too-many-fds",
        on=("tcp",),
    )
    yield case("the bus's own socket", lambda p: [With(publish(p, 1), own_socket=True)], "permission")
    yield case(
        "the bus's own socket in a request",
        lambda p: [With(publish(p, 1, Kind.REQUEST, correlation=1), own_socket=True)],
        "permission",
    )
    yield case("the bus's own socket with pieces", lambda p: [With(_first(p, fds=1), own_socket=True)], "permission")
    yield case(
        "fds of two requests with one number",
        lambda p: [
            _serving(p),
            With(_first(p, kind=Kind.REQUEST, fds=2), 2),
            p.frame(Kind.REQUEST, TOPIC, correlation=1),
            _piece(p, b"x" * 90),
        ],
    )
    yield case(
        "fds with headers that are none",
        lambda p: [With(publish(p, 3, payload=b"\xff\xff", flags=Flag.HEADERS), 3)],
        "payload",
    )
    yield case("fds with a topic that is none", lambda p: [With(p.frame(Kind.PUBLISH, "a..b", fds=3), 3)], "topic")
    yield case("fds from a forged sender", lambda p: [With(publish(p, 3, sender=p.number + 1), 3)])


def _arrangements() -> Iterator[Case]:
    """The frames by which a peer arranges things."""

    def case(name: str, build: Build, code: str = "protocol", on: Sequence[str] = ANY) -> Case:
        return Case(name, build, code, on=on)

    good = {"group": None, "credit": [9, 9, 9], "fds": "reject"}
    wrong: dict[str, object] = {
        "nil": None,
        "an array": [1, 2, 3],
        "without credit": {"fds": "reject"},
        "credit of two": {**good, "credit": [1, 1]},
        "credit of nothing": {**good, "credit": [0, 1, 1]},
        "credit below nothing": {**good, "credit": [1, -1, 1]},
        "credit of halves": {**good, "credit": [1, 1, 1.5]},
        "credit of truth": {**good, "credit": [1, 1, True]},
        "credit beyond 2**62": {**good, "credit": [1, 1, 1 << 63]},
        "an unknown fds policy": {**good, "fds": "keep"},
        "no fds policy": {"credit": [1, 1, 1]},
        "an empty group": {**good, "group": ""},
        "a group of 256 bytes": {**good, "group": "g" * 256},
        "a group that is a number": {**good, "group": 1},
    }
    for name, body in wrong.items():
        yield case(f"SUBSCRIBE with {name}", lambda p, body=body: [p.control(Kind.SUBSCRIBE, body, 1, "a")])
    for name, body in {
        "nil": None,
        "no concurrency": {},
        "0": {"concurrency": 0},
        "4,097": {"concurrency": 4097},
    }.items():
        yield case(f"SERVE with {name}", lambda p, body=body: [p.control(Kind.SERVE, body, 1, "a")])
    for kind in (Kind.UNSUBSCRIBE, Kind.UNSERVE, Kind.FLUSH, Kind.CANCEL):
        yield case(f"{kind.name} with a body", lambda p, kind=kind: [p.control(kind, 1, correlation=1)])
        yield case(f"{kind.name} without msgpack", lambda p, kind=kind: [p.frame(kind, payload=b"", correlation=1)])
    yield case("GOODBYE that is no map", lambda p: [p.control(Kind.GOODBYE, "left")])
    yield case("a body of 60,000 bytes", lambda p: [p.control(Kind.GOODBYE, {"text": "x" * 60_000})])
    yield case("CREDIT of two", lambda p: [p.subscription(TOPIC), p.control(Kind.CREDIT, [0, 0], correlation=1)])
    yield case(
        "CREDIT below nothing", lambda p: [p.subscription(TOPIC), p.control(Kind.CREDIT, [-1, 0, 0], correlation=1)]
    )
    for name, body in {"message": [1, 0, 0], "byte": [0, 1, 0], "fd": [0, 0, 1]}.items():
        yield case(
            f"CREDIT of a {name} too much",
            lambda p, body=body: [p.subscription(TOPIC), p.control(Kind.CREDIT, body, correlation=1)],
            "limit",
        )
    yield case(
        "CREDIT of 2**64 - 1",
        lambda p: [p.subscription(TOPIC), p.control(Kind.CREDIT, [(1 << 64) - 1] * 3, 1)],
        "limit",
    )
    for kind, body in ((Kind.CREDIT, [0, 0, 0]), (Kind.UNSUBSCRIBE, None), (Kind.UNSERVE, None)):
        yield case(f"{kind.name} of nothing", lambda p, kind=kind, body=body: [p.control(kind, body, correlation=1)])
        # The healthy pair and every client of this table subscribe as number 1: numbers are a link's own.
        yield case(
            f"{kind.name} of another kind",
            lambda p, kind=kind, body=body: [
                p.subscription(TOPIC, 1),
                _serving(p, 3),
                p.control(kind, body, 1 if kind is Kind.UNSERVE else 3),
            ],
        )
    for number in (0, 2):
        yield case(f"SUBSCRIBE as {number}", lambda p, n=number: [p.subscription(TOPIC, n)])
        yield case(f"SERVE as {number}", lambda p, n=number: [_serving(p, n)])
        yield case(f"REQUEST as {number}", lambda p, n=number: [p.frame(Kind.REQUEST, TOPIC, correlation=n)])
        yield case(f"FLUSH as {number}", lambda p, n=number: [p.control(Kind.FLUSH, correlation=n)])
    yield case("PUBLISH as 2", lambda p: [p.frame(Kind.PUBLISH, TOPIC, correlation=2, flags=Flag.RECEIPT)])
    yield case("a subscription's number again", lambda p: [p.subscription(TOPIC), p.subscription("bad.b")])
    yield case("a subscription's number for a server", lambda p: [p.subscription(TOPIC), _serving(p, 1)])
    yield case("a server's number for FLUSH", lambda p: [_serving(p, 1), p.control(Kind.FLUSH, correlation=1)])
    yield case("a request's number again", lambda p: [_serving(p), *[p.frame(Kind.REQUEST, TOPIC, correlation=1)] * 2])
    for number in (0, 1, 2, 3, 1 << 63):
        yield case(f"a reply to call {number}", lambda p, n=number: [p.frame(Kind.REPLY, correlation=n)])
    yield case(
        "a reply to the call after the last",
        lambda p: [_serving(p), p.frame(Kind.REQUEST, TOPIC, correlation=1), p.frame(Kind.REPLY, correlation=4)],
    )
    yield case("RECEIVED that is no number", lambda p: [p.control(Kind.RECEIVED, [0])])
    yield case("RECEIVED of an fd that was not sent", lambda p: [p.control(Kind.RECEIVED, 1)])
    yield case(
        "RECEIVED that falls",
        lambda p: [
            p.subscription(TOPIC),
            With(p.frame(Kind.PUBLISH, TOPIC, fds=2), 2),
            p.control(Kind.RECEIVED, 2),
            p.control(Kind.RECEIVED, 1),
        ],
        on=UNIX,
    )
    yield case(
        "FLUSH before the last was answered",
        lambda p: [
            p.subscription(TOPIC, credit=(1, 1, 1)),
            *[p.frame(Kind.PUBLISH, TOPIC)] * 2,
            p.control(Kind.FLUSH, correlation=3),
            p.control(Kind.FLUSH, correlation=5),
        ],
        "limit",
    )
    yield case(
        "publishes beyond the window",
        lambda p: [p.subscription(TOPIC, credit=(1, 1, 1)), *[p.frame(Kind.PUBLISH, TOPIC, bytes(60_000))] * 24],
        "limit",
    )
    yield case(
        "large publishes beyond the window",
        lambda p: [
            p.subscription(TOPIC, credit=(1, 1, 1)),
            p.frame(Kind.PUBLISH, TOPIC),
            *_large(p, 11, 1 << 20),
            *_large(p, 13, 70_000)[:1],
        ],
        "limit",
    )
    yield case(
        "fds beyond the window",
        lambda p: [p.subscription(TOPIC, credit=(1, 1, 1)), *[With(p.frame(Kind.PUBLISH, TOPIC, fds=16), 16)] * 6],
        "limit",
        on=UNIX,
    )
    yield case(
        "requests beyond the window",
        lambda p: [_serving(p), *[p.frame(Kind.REQUEST, TOPIC, bytes(60_000), 2 * i + 1) for i in range(73)]],
        "limit",
    )


def _large(peer: Raw, number: int, size: int) -> list[bytes]:
    step = 65_000
    parts = [b"x" * min(step, size - at) for at in range(0, size, step)]
    return [_first(peer, size, parts[0], correlation=number), *(_piece(peer, part, number) for part in parts[1:])]


CASES = [*_before(), *_layout(), *_topics(), *_pieces(), *_descriptors(), *_arrangements()]
