"""Input that nobody thought of: random bodies for every kind, and a good session with damage done to it.

Whatever comes, the broker answers or ends that link alone: it meets no fault of its own, a healthy pair on each
transport goes on, and nothing stays behind.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sockbus.protocol.frame import Flag, Kind, encode
from tests.broker.case import Step, With
from tests.broker.conftest import TRANSPORTS
from tests.broker.healthy import HealthyPair
from tests.broker.outside import descriptors, eventually, log_lines, status
from tests.broker.raw import SHUTDOWN, Raw, hello, pieced, with_headers
from tests.broker.test_bad_input import say
from tests.brokers import BrokerProcess

FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
CLIENT_KINDS = [
    Kind.HELLO,
    Kind.GOODBYE,
    Kind.SUBSCRIBE,
    Kind.UNSUBSCRIBE,
    Kind.CREDIT,
    Kind.SERVE,
    Kind.UNSERVE,
    Kind.PUBLISH,
    Kind.PIECE,
    Kind.REQUEST,
    Kind.REPLY,
    Kind.CANCEL,
    Kind.FLUSH,
    Kind.RECEIVED,
]
KEYS = ["version", "features", "name", "group", "credit", "fds", "concurrency", "text"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.sampled_from([0, 1, 2, 127, 128, 1 << 31, 1 << 62, (1 << 62) + 1])
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.sampled_from(["reject", "strip", "fds", ""])
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=10))
    | st.builds(msgpack.Timestamp, st.integers(0, 1 << 34))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=12,
)
bodies = st.builds(msgpack.packb, values) | st.binary(max_size=60)


@pytest.fixture(scope="module", autouse=True)
def unharmed(common: BrokerProcess, pairs: dict[str, HealthyPair]) -> Iterator[None]:
    """The broker, after all that this module did to it."""
    for pair in pairs.values():
        pair.proceed()
    before = descriptors(common)
    yield
    for pair in pairs.values():
        pair.proceed()
    eventually(lambda: descriptors(common) == before)
    eventually(lambda: status(common)["queues"]["bytes"] < 10_000)
    assert not [line for line in log_lines(common) if "was sent away" not in line]


@FUZZ
@given(kind=st.sampled_from(CLIENT_KINDS), body=bodies, numbers=st.lists(st.integers(0, 9), max_size=3), data=st.data())
def test_any_body_of_any_kind_is_answered_or_refused(
    common: BrokerProcess, kind: Kind, body: bytes, numbers: list[int], data: st.DataObject
) -> None:
    flags = data.draw(st.sampled_from([0, 1, 2, 3, 4, 8, 9, 11]))
    topic = data.draw(st.sampled_from([b"", b"fuzz", b"fuzz.>", b"$SYS.status", b"\xff", b"a..b"]))
    with Raw(common.stream) as peer:
        peer.send(peer.subscription("fuzz.>", 5) + peer.control(Kind.SERVE, {"concurrency": 3}, 7, "fuzz"))
        peer.send(peer.frame(Kind.REQUEST, "fuzz", b"\xc0", 9))
        for number in [1, *numbers]:
            peer.send(peer.frame(kind, topic, body, number, flags=flags))
        peer.send(SHUTDOWN)
        frames = peer.until_end()
        # Refused is refused once, and nothing comes behind it.
        assert all(frame.kind != Kind.ERROR or frame.correlation for frame in frames[:-1])


@FUZZ
@given(body=bodies, behind=st.binary(max_size=40))
def test_any_hello_is_answered_or_refused(common: BrokerProcess, body: bytes, behind: bytes) -> None:
    with Raw(common.tcp, greet=False) as peer:
        peer.send(encode(Kind.HELLO, payload=body) + behind)
        peer.send(SHUTDOWN)
        frames = peer.until_end()
        assert len(frames) <= 2
        assert sum(len(frame.content) + 26 for frame in frames) <= 2 * 1024


def session(peer: Raw) -> list[Step]:
    """A session in which every frame that a client may send is sent."""
    unix = peer.carries_fds
    steps: list[Step] = [
        peer.subscription("fuzz.>", 1, credit=(4, 2000, 4)),
        peer.subscription("fuzz.*", 3, group="g", fds="strip"),
        peer.control(Kind.SERVE, {"concurrency": 2}, 5, "fuzz.served"),
        peer.frame(Kind.PUBLISH, "fuzz.a", b"\x01") * 5,
        peer.frame(Kind.PUBLISH, "fuzz.b", with_headers({"k": 1}), 7, flags=Flag.HEADERS | Flag.RECEIPT),
        With(peer.frame(Kind.PUBLISH, "fuzz.c", fds=2), 2) if unix else peer.frame(Kind.PUBLISH, "fuzz.c"),
        peer.frame(Kind.PUBLISH, "fuzz.d", pieced(300, b"x" * 100), 9, flags=Flag.PIECED),
        peer.frame(Kind.PIECE, payload=b"x" * 100, correlation=9),
        peer.frame(Kind.REQUEST, "fuzz.served", b"\x02", 11),
        peer.frame(Kind.PIECE, payload=b"x" * 100, correlation=9),
        With(peer.frame(Kind.REQUEST, "fuzz.served", fds=1, correlation=13), 1) if unix else b"",
        peer.frame(Kind.REQUEST, "fuzz.served", pieced(300, b"y" * 100), 15, flags=Flag.PIECED),
        peer.frame(Kind.PIECE, payload=b"y" * 200, correlation=15),
        peer.control(Kind.CANCEL, correlation=15),
        peer.frame(Kind.REPLY, payload=with_headers({}), correlation=2, flags=Flag.HEADERS),
        peer.control(Kind.CREDIT, [1, 10, 0], correlation=1),
        peer.control(Kind.RECEIVED, 2 if unix else 0),
        peer.frame(Kind.REQUEST, "$SYS.status", correlation=17),
        peer.control(Kind.FLUSH, correlation=19),
        peer.control(Kind.UNSERVE, correlation=5),
        peer.control(Kind.UNSUBSCRIBE, correlation=1),
        peer.control(Kind.GOODBYE, {"text": "left"}),
    ]
    return [step for step in steps if step]


def damage(steps: list[Step], chance: random.Random) -> list[Step]:
    """Some steps lost, doubled, moved, torn, joined, or with other bytes or descriptors."""
    steps = list(steps)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(steps))
        step = steps[at]
        data = bytearray(step.data if isinstance(step, With) else step)
        files = step.files if isinstance(step, With) else 0
        where = chance.randrange(len(data))
        what = chance.choice(["byte", "byte", "byte", "prefix", "cut", "double", "drop", "move", "insert", "files"])
        if what == "byte":
            data[where] = chance.choice([0, 1, 2, 0x7F, 0x80, 0xC9, 0xFF, chance.randrange(256)])
        elif what == "prefix":
            data[min(where % 26, len(data) - 1)] ^= 1 << chance.randrange(8)
        elif what == "cut":
            del data[where : where + chance.choice([1, 8, 1000])]
        elif what == "double":
            steps.insert(chance.randrange(len(steps)), step)
        elif what == "drop":
            data.clear()
        elif what == "move":
            steps.insert(chance.randrange(len(steps)), steps.pop(at))
            continue
        elif what == "insert":
            data[where:where] = chance.randbytes(chance.choice([1, 26, 200]))
        else:
            files = chance.choice([0, 1, 3, 16, 17, 100])
        steps[at] = With(bytes(data), files) if files and data else bytes(data)
        steps = [step for step in steps if step] or [b"\xc9"]
    return steps


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_damaged_session_harms_nobody(
    transport: str, seed: int, common: BrokerProcess, pairs: dict[str, HealthyPair]
) -> None:
    chance = random.Random(f"{transport} {seed}")
    ends: set[str] = set()
    for _ in range(60):
        with Raw(common.address(transport), greet=False) as peer:
            if chance.random() < 0.1:
                opening = bytearray(hello())
                opening[chance.randrange(len(opening))] ^= 1 << chance.randrange(8)
                peer.send(bytes(opening))
            else:
                peer.greet()
            for step in damage(session(peer), chance):
                if not say(peer, step if peer.carries_fds or not isinstance(step, With) else step.data):
                    break
            peer.send(SHUTDOWN)
            frames = peer.until_end()
            codes = [frame.body["code"] for frame in frames if frame.kind is Kind.ERROR and not frame.correlation]
            ends.add(codes[0] if codes else "closed")
    pairs[transport].proceed()
    assert {"closed", "protocol"} <= ends


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_undamaged_session_is_a_good_one(transport: str, common: BrokerProcess) -> None:
    """Or the damage would test nothing."""
    with Raw(common.address(transport)) as peer:
        for step in session(peer):
            assert say(peer, step)
        frames = peer.until_end()
    assert not [frame.body for frame in frames if frame.kind is Kind.ERROR and not frame.correlation]
    assert {17, 7} <= {frame.correlation for frame in frames if frame.kind in (Kind.ANSWER, Kind.RECEIPT)}
