"""Bad input that a frame shows by itself: before the handshake, in its prefix, its topic, its headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from sockbus.protocol.frame import MAX_FRAME, PREFIX, Flag, Kind, control, encode
from tests.broker.case import ANY, STREAMS, TOPIC, Build, Case, first_frame, padded_hello
from tests.broker.raw import SHUTDOWN, Raw, hello, with_headers


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
    for kind in (0, 6, 22, 55, 255):
        yield case(f"unknown kind {kind}", lambda p, kind=kind: [encode(kind, sender=p.number, payload=b"\xc0")])
    for kind in Kind:
        if kind.name in ("WELCOME", "ERROR", "OK", "RECEIPT", "DELIVER", "CALL", "ANSWER", "WINDOW", "PEER", "GONE"):
            yield case(f"{kind.name} from a client", lambda p, kind=kind: [p.control(kind, [1], correlation=1)])
    for bit in (0x20, 0x40, 0x80, Flag.FAILED):
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
    yield case("a large PUBLISH on $SYS", lambda p: [first_frame(p, topic="$SYS.status")], "permission")
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


CASES = [*_before(), *_layout(), *_topics()]
