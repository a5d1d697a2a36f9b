"""Bad input in the frames by which a peer arranges things, and in how much it sends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sockbus.protocol.frame import Flag, Kind
from tests.broker.case import ANY, TOPIC, UNIX, Build, Case, With, first_frame, piece, serving
from tests.broker.raw import Raw


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
        "more outstanding than credit": {**good, "outstanding": [10, 1, 1]},
        "outstanding of two": {**good, "outstanding": [1, 1]},
        "outstanding beyond 2**62": {**good, "outstanding": [1, 1 << 63, 1]},
        "outstanding nothing": {**good, "outstanding": None},
        "an unknown fds policy": {**good, "fds": "keep"},
        "no fds policy": {"credit": [1, 1, 1]},
        "an empty group": {**good, "group": ""},
        "a group of 256 bytes": {**good, "group": "g" * 256},
        "a group that is a number": {**good, "group": 1},
        "an unknown overflow": {**good, "overflow": "wait"},
        "an overflow that is a number": {**good, "overflow": 1},
        "an overflow in a group": {**good, "group": "g", "overflow": "latest"},
        "a stall of nothing": {**good, "stall": 0},
        "a stall below nothing": {**good, "stall": -1.5},
        "a stall that is no number": {**good, "stall": float("nan")},
        "a stall of truth": {**good, "stall": True},
        "a stall in words": {**good, "stall": "long"},
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
                serving(p, 3),
                p.control(kind, body, 1 if kind is Kind.UNSERVE else 3),
            ],
        )
    for number in (0, 2):
        yield case(f"SUBSCRIBE as {number}", lambda p, n=number: [p.subscription(TOPIC, n)])
        yield case(f"SERVE as {number}", lambda p, n=number: [serving(p, n)])
        yield case(f"REQUEST as {number}", lambda p, n=number: [p.frame(Kind.REQUEST, TOPIC, correlation=n)])
        yield case(f"FLUSH as {number}", lambda p, n=number: [p.control(Kind.FLUSH, correlation=n)])
    yield case("PUBLISH as 2", lambda p: [p.frame(Kind.PUBLISH, TOPIC, correlation=2, flags=Flag.RECEIPT)])
    yield case("a subscription's number again", lambda p: [p.subscription(TOPIC), p.subscription("bad.b")])
    yield case("a subscription's number for a server", lambda p: [p.subscription(TOPIC), serving(p, 1)])
    yield case("a server's number for FLUSH", lambda p: [serving(p, 1), p.control(Kind.FLUSH, correlation=1)])
    yield case("a request's number again", lambda p: [serving(p), *[p.frame(Kind.REQUEST, TOPIC, correlation=1)] * 2])
    for name, wrong_watch in {
        "nil": None,
        "one": [1],
        "three": [1, 1, 1],
        "below nothing": [-1, 0],
        "text": ["1", 0],
    }.items():
        yield case(f"WATCH with {name}", lambda p, body=wrong_watch: [p.control(Kind.WATCH, body, 1, TOPIC)])
    yield case("WATCH of no pattern", lambda p: [p.control(Kind.WATCH, [1, 0], 1, "a..b")], "topic")
    yield case("WATCH twice", lambda p: [p.control(Kind.WATCH, [1, 0], 1, TOPIC)] * 2)
    yield case("UNWATCH of nothing", lambda p: [p.control(Kind.UNWATCH, correlation=1)])
    yield case("UNWATCH of a subscription", lambda p: [p.subscription(TOPIC), p.control(Kind.UNWATCH, correlation=1)])
    yield case(
        "UNWATCH with a body", lambda p: [p.control(Kind.WATCH, [1, 0], 1, TOPIC), p.control(Kind.UNWATCH, 1, 1)]
    )
    yield case(
        "watches beyond the limit",
        lambda p: [p.subscription(TOPIC), *[p.control(Kind.WATCH, [9, 0], n, TOPIC) for n in range(3, 1029, 2)]],
        "limit",
    )
    for number in (0, 2):
        yield case(f"WATCH as {number}", lambda p, n=number: [p.control(Kind.WATCH, [1, 0], n, TOPIC)])
        yield case(f"WILL as {number}", lambda p, n=number: [p.frame(Kind.WILL, TOPIC, correlation=n)])
    yield case("WILL on a topic of the broker's", lambda p: [p.frame(Kind.WILL, "$SYS.x", correlation=1)], "permission")
    yield case("WILL on a pattern", lambda p: [p.frame(Kind.WILL, "a.*", correlation=1)], "topic")
    yield case("WILL as a server", lambda p: [serving(p, 1), p.frame(Kind.WILL, TOPIC, correlation=1)])
    yield case(
        "a kept publish as a subscription",
        lambda p: [p.subscription(TOPIC), p.frame(Kind.PUBLISH, TOPIC, correlation=1, flags=Flag.RETAIN)],
    )
    yield case(
        "a kept publish on a topic of the broker's",
        lambda p: [p.frame(Kind.PUBLISH, "$SYS.x", correlation=1, flags=Flag.RETAIN)],
        "permission",
    )
    for number in (0, 1, 2, 3, 1 << 63):
        yield case(f"a reply to call {number}", lambda p, n=number: [p.frame(Kind.REPLY, correlation=n)])
    yield case(
        "a reply to the call after the last",
        lambda p: [serving(p), p.frame(Kind.REQUEST, TOPIC, correlation=1), p.frame(Kind.REPLY, correlation=4)],
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
        lambda p: [serving(p), *[p.frame(Kind.REQUEST, TOPIC, bytes(60_000), 2 * i + 1) for i in range(73)]],
        "limit",
    )


def _large(peer: Raw, number: int, size: int) -> list[bytes]:
    step = 65_000
    parts = [b"x" * min(step, size - at) for at in range(0, size, step)]
    return [first_frame(peer, size, parts[0], correlation=number), *(piece(peer, part, number) for part in parts[1:])]


CASES = list(_arrangements())
