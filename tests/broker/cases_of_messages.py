"""Bad input that only shows in what belongs together: pieces, and descriptors with their frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sockbus.protocol.frame import Flag, Kind
from tests.broker.case import TOPIC, UNIX, Build, Case, With, first_frame, piece, serving
from tests.broker.raw import SHUTDOWN, Raw


def _pieces() -> Iterator[Case]:
    """Messages whose parts do not add up."""

    def case(name: str, build: Build, code: str | None = "protocol") -> Case:
        return Case(name, build, code)

    yield case("pieces without a number", lambda p: [first_frame(p, correlation=0)])
    yield case("a piece of nothing", lambda p: [piece(p)])
    yield case("a piece of another message", lambda p: [first_frame(p), piece(p, correlation=3)])
    yield case("a piece too much", lambda p: [first_frame(p), piece(p, b"x" * 91)])
    yield case("a piece behind the last", lambda p: [first_frame(p), piece(p, b"x" * 90), piece(p)])
    yield case("an empty piece", lambda p: [first_frame(p), piece(p, b"")])
    yield case("a total that the first frame holds", lambda p: [first_frame(p, 10)])
    yield case("a total below what the first frame holds", lambda p: [first_frame(p, 9)])
    yield case("a total of 0", lambda p: [first_frame(p, 0)])
    yield case("a first frame without payload", lambda p: [first_frame(p, part=b"")])
    yield case("a first frame without a total", lambda p: [p.frame(Kind.PUBLISH, TOPIC, b"", 1, flags=Flag.PIECED)])
    yield case("a total of 2**64 - 1", lambda p: [first_frame(p, (1 << 64) - 1)], "too-large")
    yield case("a total beyond message_bytes", lambda p: [first_frame(p, (64 << 20) + 1)], "too-large")
    yield case("more pieces than a message may have", lambda p: [first_frame(p), *[piece(p, b"x")] * 17])
    yield case("PUBLISH between pieces", lambda p: [first_frame(p), p.frame(Kind.PUBLISH, TOPIC)])
    yield case("a large PUBLISH between pieces", lambda p: [first_frame(p), first_frame(p, correlation=3)])
    yield case("a message that starts again", lambda p: [first_frame(p), first_frame(p)])
    request = {"kind": Kind.REQUEST}
    yield case("a request that starts again", lambda p: [first_frame(p, **request), first_frame(p, **request)])
    yield case("a publish with a request's number", lambda p: [first_frame(p, **request), first_frame(p, 60 << 20)])
    yield case(
        "a request with the number of one in pieces",
        lambda p: [
            serving(p),
            first_frame(p, **request),
            p.frame(Kind.REQUEST, TOPIC, correlation=1),
            piece(p, b"x" * 90),
        ],
    )
    yield case("the end between pieces", lambda p: [first_frame(p), SHUTDOWN], None)


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
        lambda p: [first_frame(p), With(p.frame(Kind.PIECE, payload=b"x", correlation=1, fds=1), 1)],
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
    yield case(
        "the bus's own socket with pieces", lambda p: [With(first_frame(p, fds=1), own_socket=True)], "permission"
    )
    yield case(
        "fds of two requests with one number",
        lambda p: [
            serving(p),
            With(first_frame(p, kind=Kind.REQUEST, fds=2), 2),
            p.frame(Kind.REQUEST, TOPIC, correlation=1),
            piece(p, b"x" * 90),
        ],
    )
    yield case(
        "fds with headers that are none",
        lambda p: [With(publish(p, 3, payload=b"\xff\xff", flags=Flag.HEADERS), 3)],
        "payload",
    )
    yield case("fds with a topic that is none", lambda p: [With(p.frame(Kind.PUBLISH, "a..b", fds=3), 3)], "topic")
    yield case("fds from a forged sender", lambda p: [With(publish(p, 3, sender=p.number + 1), 3)])


CASES = [*_pieces(), *_descriptors()]
