"""Publishing and taking: what goes in comes out, to whom it matches, in order, from whom the broker says."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import Message, Peer
from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime

Connect = Callable[..., Any]

PAYLOADS = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    1.5,
    float("inf"),
    "",
    "grüß dich, 世界 🐍",
    b"",
    b"\x00\xff raw",
    [],
    [1, [2, [3, None]]],
    {},
    {"c": 21.5, "nested": {"list": [b"bytes", "text"]}, 7: "number as key"},
]


async def take(subscription: Any, count: int) -> list[Message]:
    return [await subscription.receive() for _ in range(count)]


async def test_every_payload_comes_out_as_it_went_in(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        for payload in PAYLOADS:
            await bus.publish(topic, payload)
        came = await take(messages, len(PAYLOADS))
    assert [message.payload for message in came] == PAYLOADS
    assert [type(message.payload) for message in came] == [type(payload) for payload in PAYLOADS]
    assert all(type(message.data) is bytes and message.topic == topic for message in came)


async def test_tuples_come_out_as_lists(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        await bus.publish(topic, (1, (2, 3)))
        assert (await messages.receive()).payload == [1, [2, 3]]


async def test_plain_message_has_nothing_that_was_not_given(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        assert await bus.publish(topic) is None
        message = await messages.receive()
        assert messages.lost == 0
    assert (message.payload, message.data, message.headers, message.fds) == (None, b"\xc0", {}, ())
    assert (message.fds_missing, message.lost) == (0, 0)


async def test_headers_come_out_as_they_went_in(connect: Connect, topic: str) -> None:
    headers = {"text": "ü", "int": -5, "float": 0.5, "bool": True, "bytes": b"\x00\x01", "": "empty name"}
    async with connect() as bus, bus.subscribe(topic) as messages:
        await bus.publish(topic, "body", headers=headers)
        await bus.publish(topic, "body", headers={})
        with_headers, without = await take(messages, 2)
    assert with_headers.headers == headers
    assert type(with_headers.headers["bool"]) is bool
    assert with_headers.payload == "body"
    assert without.headers == {}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("a.b", ["a.b"]),
        ("a.*", ["a.b", "a.é"]),
        ("*.b", ["a.b", "c.b"]),
        ("a.>", ["a.b", "a.b.c", "a.é"]),
        (">", ["a", "a.b", "a.b.c", "c.b", "a.é"]),
        ("*.*.c", ["a.b.c"]),
        ("*", ["a"]),
    ],
)
async def test_subscription_gets_just_what_its_pattern_matches(
    connect: Connect, topic: str, pattern: str, wanted: list[str]
) -> None:
    topics = ["a", "a.b", "a.b.c", "c.b", "a.é"]
    async with connect() as bus, bus.subscribe(f"{topic}.{pattern}") as messages:
        for name in topics:
            await bus.publish(f"{topic}.{name}", name)
        await bus.flush()
        came = [message.payload for message in await take(messages, len(wanted))]
        async with bus.subscribe(f"{topic}.{pattern}") as later:
            await bus.publish(f"{topic}.{wanted[0]}", "last")
            assert (await later.receive()).payload == "last"
        assert (await messages.receive()).payload == "last"
    assert came == wanted


async def test_publisher_without_subscribers_is_not_held_up(connect: Connect, topic: str) -> None:
    async with connect() as bus:
        for number in range(2000):
            await bus.publish(topic, [number, b"x" * 1000])
        assert await bus.publish(topic, "last", receipt=True) is not None


async def test_message_that_matches_two_subscriptions_comes_once_for_each(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(f"{topic}.*") as wide, bus.subscribe(f"{topic}.a") as narrow:
        for number in range(100):
            await bus.publish(f"{topic}.a", number)
        assert [message.payload for message in await take(wide, 100)] == list(range(100))
        assert [message.payload for message in await take(narrow, 100)] == list(range(100))


async def test_sender_is_who_the_broker_says(connect: Connect, topic: str, transport: str) -> None:
    local = transport != "tcp"
    async with connect(name="sénder") as sender, connect() as taker, taker.subscribe(topic) as messages:
        await sender.publish(topic)
        message = await messages.receive()
        assert sender.peer == Peer(
            id=sender.peer.id,
            name="sénder",
            transport=transport,
            uid=os.getuid() if local else None,
            gid=os.getgid() if local else None,
            pid=os.getpid() if local else None,
        )
        assert message.sender == sender.peer
        assert taker.peer.name is None
        assert taker.peer.id != sender.peer.id
        assert (sender.transport, sender.address) == (transport, taker.address)


async def test_bus_says_which_road_it_took(connect: Connect, address: str, transport: str) -> None:
    async with connect() as bus:
        assert (bus.address, bus.transport) == (address, transport)


async def test_peer_numbers_are_not_used_again(connect: Connect) -> None:
    seen = []
    for _ in range(3):
        async with connect() as bus:
            seen.append(bus.peer.id)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("near", ["seqpacket", "stream", "tcp"])
async def test_messages_cross_from_every_transport_to_every_other(
    runtime: Runtime, common_broker: BrokerProcess, transport: str, near: str, topic: str
) -> None:
    body = {"n": 1, "b": b"x" * 100_000}
    async with (
        runtime.connect(common_broker.address(near)) as sender,
        runtime.connect(common_broker.address(transport)) as taker,
        taker.subscribe(topic) as messages,
    ):
        for headers in ({}, {"k": "v"}):
            await sender.publish(topic, body, headers=headers)
            message = await messages.receive()
            assert (message.payload, message.headers, message.sender.transport) == (body, headers, near)
