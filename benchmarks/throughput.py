"""Messages a second from one publisher to its subscribers, beside a bare socket pair.

The promise is about 64-byte messages on one topic in Trio; the other rows are for information: topics that
alternate defeat the runs of alike frames, four subscribers share two or more processors, and larger payloads
show what a byte costs. The reference of a row sends messages of the same size to one receiver.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import sockbus.blocking

from .process import Crew
from .programs import Connect, answer, orders, run
from .references import message_pair
from .report import Floor, Table
from .rounds import Effort, compare, transfer

__all__ = ["CASES", "measure", "publish", "subscribe"]

FLOOR = Floor(0.4)
_SUBSCRIBERS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """What one row is about: payload bytes, topics that take turns, subscribers."""

    size: int = 64
    topics: int = 1
    subscribers: int = 1


CASES = {
    "64B": Case(),
    "64B-16-topics": Case(topics=16),
    "64B-to-4": Case(subscribers=_SUBSCRIBERS),
    "1KiB": Case(size=1 << 10),
    "64KiB": Case(size=1 << 16),
}


def measure(transports: Sequence[str], cases: Sequence[str], runtimes: Sequence[str], effort: Effort) -> None:
    """Print the table."""
    table = Table(
        "throughput: one publisher -> broker -> subscribers; reference: a bare blocking socket pair, unbatched",
        "messages/s",
        ("pub us/msg", "broker us", "sub us"),
        effort,
    )
    most = max(CASES[name].subscribers for name in cases)
    for transport in transports:
        for runtime in runtimes:
            with Crew() as crew:
                broker, address = crew.broker(transport)
                options = {"runtime": runtime, "address": address}
                publisher = crew.start("publisher", publish, **options)
                subscribers = [crew.start(f"subscriber {n}", subscribe, **options) for n in range(1, most + 1)]
                sender, receiver = message_pair(crew, transport)
                crew.answers(publisher, *subscribers, sender, receiver)
                for name in cases:
                    case = CASES[name]
                    takers = subscribers[: case.subscribers]
                    bus = transfer(crew, publisher, takers, (broker,), size=case.size, topics=case.topics)
                    bare = transfer(crew, sender, (receiver,), (), size=case.size)
                    promised = runtime == "trio" and transport != "tcp" and case == Case()
                    table.row(transport, name, runtime, compare(bus, bare, effort), FLOOR if promised else None)


def publish(runtime: str, address: str) -> None:
    """``count`` messages of ``size`` bytes on ``topics`` topics in turn; answers when it began."""
    run(runtime, _publish, _publish_blocking, address)


async def _publish(connect: Connect, address: str) -> None:
    async with connect(address) as bus:
        for order in orders():
            payload = bytes(order["size"])
            topics = _topics(order["topics"])
            started = time.monotonic()
            for topic in islice(cycle(topics), order["count"]):
                await bus.publish(topic, payload)
            await bus.flush()
            answer(started)


def _publish_blocking(address: str) -> None:
    with sockbus.blocking.connect(address) as bus:
        for order in orders():
            payload = bytes(order["size"])
            topics = _topics(order["topics"])
            started = time.monotonic()
            with bus.batch():
                for topic in islice(cycle(topics), order["count"]):
                    bus.publish(topic, payload)
            bus.flush()
            answer(started)


def _topics(count: int) -> list[str]:
    return [f"benchmark.{number}" for number in range(count)]


def subscribe(runtime: str, address: str) -> None:
    """Answers when the subscription is in force, and when the last of ``count`` messages was taken."""
    run(runtime, _subscribe, _subscribe_blocking, address)


async def _subscribe(connect: Connect, address: str) -> None:
    async with connect(address) as bus:
        for order in orders():
            left = order["count"]
            async with bus.subscribe("benchmark.*") as messages:
                answer()
                async for _ in messages:
                    left -= 1
                    if not left:
                        break
                ended = time.monotonic()
            answer(ended)


def _subscribe_blocking(address: str) -> None:
    with sockbus.blocking.connect(address) as bus:
        for order in orders():
            left = order["count"]
            with bus.subscribe("benchmark.*") as messages:
                answer()
                for _ in messages:
                    left -= 1
                    if not left:
                        break
                ended = time.monotonic()
            answer(ended)
