"""Every limit at one below, at, and one above a lowered value: the table says what comes of it.

"ok" is a peer that goes on; a code is the ERROR that it is sent away with; "waits" is what goes on later. What only
time shows is asked for a lower bound, never for an upper one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from sockbus.broker.config import LIMITS, Limits
from sockbus.broker.hub import EASE, Hub
from sockbus.protocol.frame import MAX_FRAME, Kind
from tests.broker.acts import (
    TOPIC,
    bytes_left_behind,
    bytes_of_a_frame,
    bytes_of_a_message_in_pieces,
    bytes_of_a_name,
    bytes_of_a_publish,
    bytes_of_a_publish_with_receipt,
    bytes_of_a_record,
    bytes_of_a_reply,
    bytes_of_a_request,
    bytes_of_headers,
    bytes_of_hello,
    bytes_retained,
    bytes_retained_in_place_of_others,
    concurrency,
    connections_of_a_host,
    connections_of_another_user,
    connections_of_the_own_user,
    fds_of_a_message,
    fds_on_their_way_to_a_reader,
    fds_retained,
    first_of,
    keys_of_headers,
    publish_bytes_waiting,
    publish_fds_waiting,
    reply_bytes_waiting,
    request_bytes_waiting,
    requests_unanswered,
    requests_unanswered_in_pieces,
    retained_topics,
    servers,
    silent_peers_before_one_more,
    subscriptions,
    subscriptions_come_and_gone,
    tokens_of_a_topic,
)
from tests.broker.outside import descriptors, eventually
from tests.broker.raw import Raw, hello
from tests.brokers import BrokerProcess

Act = Callable[[BrokerProcess, int], str]


@dataclass(frozen=True, slots=True)
class Row:
    """``limit`` None: fixed by the protocol, at ``value``."""

    limit: str | None
    value: int
    act: Act
    outcomes: Sequence[str]


REFUSED = ("ok", "ok", "limit")
TABLE = [
    *[
        Row("message_bytes", value, act, ("ok", "ok", "too-large"))
        for value in (26, 1000)
        for act in (bytes_of_a_publish, bytes_of_a_publish_with_receipt, bytes_of_a_request, bytes_of_a_reply)
    ],
    Row("message_bytes", 1000, bytes_of_a_message_in_pieces, ("ok", "ok", "too-large")),
    Row("header_bytes", 20, bytes_of_headers, ("ok", "ok", "too-large")),
    Row("header_keys", 4, keys_of_headers, ("ok", "ok", "payload")),
    Row("message_fds", 3, fds_of_a_message, ("ok", "ok", "too-many-fds")),
    Row("link_fds", 4, publish_fds_waiting, ("ok", "limit", "limit")),
    Row("link_fds", 4, fds_on_their_way_to_a_reader, ("ok", "waits", "waits")),
    Row("subscriptions", 3, subscriptions, REFUSED),
    Row("subscriptions", 1, subscriptions_come_and_gone, ("ok", "ok", "ok")),
    Row("servers", 3, servers, REFUSED),
    Row("pending_requests", 4, requests_unanswered, REFUSED),
    Row("pending_requests", 4, requests_unanswered_in_pieces, REFUSED),
    Row("pending_requests", 4, concurrency, ("ok", "ok", "protocol")),
    Row("connections", 4, connections_of_the_own_user, REFUSED),
    Row("connections", 4, connections_of_a_host, REFUSED),
    Row("connections_per_uid", 4, connections_of_the_own_user, ("ok", "ok", "ok")),
    Row("connections_per_uid", 4, connections_of_a_host, REFUSED),
    Row("connections_per_uid", 4, connections_of_another_user, REFUSED),
    Row("handshakes", 10, silent_peers_before_one_more, ("0 made way", "1 made way", "2 made way")),
    Row("window_bytes", 1000, publish_bytes_waiting, ("ok", "limit", "limit")),
    Row("call_window_bytes", 1000, request_bytes_waiting, ("ok", "limit", "limit")),
    Row("call_window_bytes", 1000, reply_bytes_waiting, ("ok", "limit", "limit")),
    Row("link_queue_bytes", 1000, bytes_left_behind, ("ok", "waits", "waits")),
    Row("retained", 3, retained_topics, REFUSED),
    Row("retained_bytes", 1000, bytes_retained, REFUSED),
    Row("retained_bytes", 1000, bytes_retained_in_place_of_others, REFUSED),
    Row("retained_fds", 4, fds_retained, REFUSED),
    Row(None, 4096, bytes_of_hello, ("ok", "ok", "too-large")),
    Row(None, 255, bytes_of_a_name, ("ok", "ok", "protocol")),
    Row(None, MAX_FRAME, bytes_of_a_frame, ("ok", "ok", "too-large")),
    Row(None, MAX_FRAME, bytes_of_a_record, ("ok", "ok", "protocol")),
    Row(None, 32, tokens_of_a_topic, ("ok", "ok", "topic")),
]


@pytest.fixture(scope="module")
def limited() -> Iterator[Callable[..., BrokerProcess]]:
    """Starts a broker with options, unless the last one has them; one runs at a time."""
    running: list[tuple[tuple[str, ...], BrokerProcess]] = []

    def broker(*options: str) -> BrokerProcess:
        if not running or running[0][0] != options:
            while running:
                running.pop()[1].__exit__(None, None, None)
            running.append((options, BrokerProcess(*options).__enter__()))
        return running[0][1]

    yield broker
    while running:
        running.pop()[1].__exit__(None, None, None)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.limit}={row.value}-{row.act.__name__}") for row in TABLE])
def test_limit_below_at_and_above(row: Row, limited: Callable[..., BrokerProcess]) -> None:
    broker = limited() if row.limit is None else limited("--limit", f"{row.limit}={row.value}")
    found, before = [], descriptors(broker)
    for more in (-1, 0, 1):
        found.append(row.act(broker, row.value + more))
        # A connection counts until the broker has seen its end.
        eventually(lambda: descriptors(broker) == before)
    assert found == list(row.outcomes)


@pytest.mark.parametrize(("more", "full"), [(-1, False), (0, True), (1, True)])
@pytest.mark.parametrize(("limit", "account"), [("total_queue_bytes", "queued_bytes"), ("total_fds", "held_fds")])
def test_hub_is_full_from_its_totals_on(limit: str, account: str, more: int, full: bool) -> None:
    hub = Hub(Limits(**{"total_fds": 10_000, limit: 1000}))
    setattr(hub, account, 1000 + more)
    assert hub.full is full


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_publisher_is_held_up_while_the_hub_is_full_and_not_for_good(more: int) -> None:
    with (
        BrokerProcess("--limit", "total_queue_bytes=1000") as broker,
        Raw(broker.stream) as reader,
        Raw(broker.stream) as peer,
    ):
        reader.subscribe(TOPIC, credit=(1, 1, 1))
        reader.send(reader.frame(Kind.PUBLISH, TOPIC))
        reader.expect(Kind.PUBLISH)
        began = time.monotonic()
        peer.send(peer.frame(Kind.PUBLISH, TOPIC, bytes(1000 + more - 26 - len(TOPIC))))
        for _ in range(5):
            peer.request("$SYS.status")
        assert more < 0 or time.monotonic() - began >= 4 * EASE
        reader.send(reader.control(Kind.CREDIT, [1, 26 + len(TOPIC) + 1, 0], correlation=1))
        reader.expect(Kind.PUBLISH)
        peer.settle()


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("handshake_seconds", "nothing"),
        ("handshake_seconds", "half of HELLO"),
        ("incomplete_seconds", "half a frame"),
        ("incomplete_seconds", "half a message"),
        ("incomplete_seconds", "half a request"),
    ],
)
def test_what_is_not_finished_in_time_ends_the_link_and_not_before(limit: str, name: str) -> None:
    with BrokerProcess("--limit", f"{limit}=1") as broker, Raw(broker.stream, greet=limit[0] == "i") as peer:
        began = time.monotonic()
        if name == "half of HELLO":
            peer.send(hello()[:40])
        elif name == "half a frame":
            peer.send(peer.frame(Kind.PUBLISH, TOPIC, bytes(100))[:60])
        elif name == "half a message":
            peer.send(first_of(1000, peer))
        elif name == "half a request":
            peer.send(first_of(1000, peer, Kind.REQUEST))
        frame = peer.expect(Kind.ERROR)
        assert (frame.body["code"], peer.until_end()) == ("protocol", [])
        assert limit in frame.body["text"]
        # The broker's clock and ours tick apart.
        assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(("stall", "seconds"), [(None, 1.0), (0.3, 0.3), (1.7, 1.7)])
def test_subscription_without_credit_ends_after_stall_seconds_or_its_own_and_not_before(
    stall: float | None, seconds: float
) -> None:
    with BrokerProcess("--limit", "stall_seconds=1") as broker, Raw(broker.stream) as peer:
        peer.subscribe(TOPIC, credit=(1, 1, 1), stall=stall)
        peer.send(peer.frame(Kind.PUBLISH, TOPIC) * 2)
        began = time.monotonic()
        frame = peer.expect(Kind.ERROR)
        assert (frame.body["code"], frame.correlation) == ("stalled", 1)
        assert f"stall = {seconds:g} s" in frame.body["text"]
        assert time.monotonic() - began > 0.9 * seconds
        peer.settle()


def test_every_limit_is_in_the_table() -> None:
    tested = {row.limit for row in TABLE} | {
        "total_queue_bytes",
        "total_fds",
        "handshake_seconds",
        "incomplete_seconds",
        "stall_seconds",
    }
    assert tested - {None} == set(LIMITS)
    assert json.dumps(Limits().as_dict())
