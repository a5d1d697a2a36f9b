"""Messages around and beyond the size of a frame, and what passes between their pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import MessageTooLarge, Receipt
from sockbus.protocol.frame import MAX_FRAME
from tests.contract.runtime import PATIENCE, Runtime
from tests.contract.status import page

Connect = Callable[..., Any]

EDGE = range(65_400, 65_701)
MIB = 1 << 20


def body(size: int) -> bytes:
    """Bytes of which no part is like another."""
    return hashlib.shake_128(str(size).encode()).digest(size)


@pytest.mark.parametrize("kind", ["plain", "headers", "receipt"])
async def test_every_size_around_a_frame_arrives_whole(
    connect: Connect, runtime: Runtime, topic: str, kind: str
) -> None:
    options: dict[str, Any] = {"plain": {}, "headers": {"headers": {"key": "value"}}, "receipt": {"receipt": True}}[
        kind
    ]
    whole = body(EDGE.stop)

    async def publish() -> None:
        for size in EDGE:
            receipt = await bus.publish(topic, whole[:size], **options)
            assert receipt == (Receipt(1, 1, 0, 0) if kind == "receipt" else None)

    assert EDGE.start < MAX_FRAME < EDGE.stop
    async with connect() as bus, connect() as taker, taker.subscribe(topic) as messages, runtime.during(publish):
        for size in EDGE:
            message = await messages.receive()
            assert message.payload == whole[:size]
            assert message.headers == options.get("headers", {})


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 5 * MIB])
async def test_large_messages_arrive_whole_and_in_their_place(connect: Connect, topic: str, size: int) -> None:
    async with connect() as bus, connect() as taker, taker.subscribe(topic) as messages:
        await bus.publish(topic, "before")
        await bus.publish(topic, body(size), headers={"size": size})
        await bus.publish(topic, "after")
        assert (await messages.receive()).payload == "before"
        large = await messages.receive()
        assert (large.payload == body(size), large.headers) == (True, {"size": size})
        assert (await messages.receive()).payload == "after"


async def test_large_text_and_structures_arrive_whole(connect: Connect, topic: str) -> None:
    value = {"text": "grüße " * 30_000, "numbers": list(range(50_000)), "none": None}
    async with connect() as bus, bus.subscribe(topic) as messages:
        await bus.publish(topic, value)
        assert (await messages.receive()).payload == value


async def test_largest_message_passes_and_one_byte_more_is_refused(connect: Connect, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        limit = (await page(bus))["limits"]["message_bytes"]
        largest = bytes(limit - 5)  # 5: what msgpack puts in front of it
        with pytest.raises(MessageTooLarge, match=rf"{limit + 1} bytes .* message_bytes = {limit}"):
            await bus.publish(topic, largest + b"x")
        await bus.publish(topic, largest)
        message = await messages.receive()
        assert len(message.data) == limit


async def test_large_messages_of_several_tasks_do_not_mix(connect: Connect, runtime: Runtime, topic: str) -> None:
    sizes = [200_000 + 1000 * number for number in range(8)]

    async def publish(bus: Any, size: int) -> None:
        for _ in range(3):
            await bus.publish(topic, body(size))

    async with connect() as one, connect() as two, connect() as taker, taker.subscribe(topic) as messages:
        calls = [lambda bus=bus, size=size: publish(bus, size) for bus in (one, two) for size in sizes]
        async with runtime.during(*calls):
            came = [(await messages.receive()).payload for _ in range(6 * len(sizes))]
    assert sorted(map(len, came)) == sorted(6 * sizes)
    assert all(payload == body(len(payload)) for payload in came)


async def test_requests_pass_between_the_pieces_of_a_large_message(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    answered_before: list[bool] = []
    arrived = False

    async def publish() -> None:
        await bus.publish(topic, body(20 * MIB))

    async def ask() -> None:
        while not arrived:
            assert (await bus.request(f"{topic}.echo", "ping", timeout=PATIENCE)).payload == "ping"
            answered_before.append(not arrived)

    async def take() -> None:
        nonlocal arrived
        assert (await messages.receive()).payload == body(20 * MIB)
        arrived = True

    async with (
        connect() as bus,
        connect() as taker,
        taker.subscribe(topic) as messages,
        runtime.serving(taker, f"{topic}.echo", lambda request: request.payload),
    ):
        await runtime.gather(take, publish, ask)
    assert sum(answered_before) > 1


async def test_large_requests_and_replies_arrive_whole(connect: Connect, runtime: Runtime, topic: str) -> None:
    def handler(request: Any) -> bytes:
        assert request.payload == body(len(request.payload))
        return body(len(request.payload) + 1)

    async with connect() as bus, connect() as server, runtime.serving(server, topic, handler):
        for size in (*range(65_480, 65_540), MIB, 5 * MIB):
            reply = await bus.request(topic, body(size), timeout=PATIENCE)
            assert reply.payload == body(size + 1)
