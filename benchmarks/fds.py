"""Messages with one file descriptor each, beside a bare socket pair; for information.

The publisher sends the same memfd again and again, the subscriber closes what it gets. Only UNIX sockets pass
descriptors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import repeat

import sockbus.blocking

from .process import Crew
from .programs import Connect, answer, orders, run
from .references import fd_pair
from .report import Table
from .rounds import Effort, compare, transfer

__all__ = ["CASES", "measure"]

CASES = ("1-fd",)
_BYTES = 64


def measure(transports: Sequence[str], cases: Sequence[str], runtimes: Sequence[str], effort: Effort) -> None:
    """Print the table."""
    table = Table(
        "fds: 64-byte messages with an fd each; reference: a bare socket pair, one sendmsg and one recvmsg for each",
        "messages/s",
        ("pub us/msg", "broker us", "sub us"),
        effort,
    )
    for transport in transports:
        for runtime in runtimes:
            with Crew() as crew:
                broker, address = crew.broker(transport)
                options = {"runtime": runtime, "address": address}
                publisher = crew.start("publisher", publish, **options)
                subscriber = crew.start("subscriber", subscribe, **options)
                sender, receiver = fd_pair(crew, transport)
                crew.answers(publisher, subscriber, sender, receiver)
                for name in cases:
                    bus = transfer(crew, publisher, (subscriber,), (broker,), size=_BYTES)
                    bare = transfer(crew, sender, (receiver,), (), size=_BYTES)
                    table.row(transport, name, runtime, compare(bus, bare, effort))


def publish(runtime: str, address: str) -> None:
    """``count`` messages with a memfd each; answers when it began."""
    run(runtime, _publish, _publish_blocking, address)


async def _publish(connect: Connect, address: str) -> None:
    file = os.memfd_create("benchmark")
    async with connect(address) as bus:
        for order in orders():
            payload = bytes(order["size"])
            fds = (file,)
            started = time.monotonic()
            for _ in repeat(None, order["count"]):
                await bus.publish("benchmark.fd", payload, fds=fds)
            await bus.flush()
            answer(started)


def _publish_blocking(address: str) -> None:
    file = os.memfd_create("benchmark")
    with sockbus.blocking.connect(address) as bus:
        for order in orders():
            payload = bytes(order["size"])
            fds = (file,)
            started = time.monotonic()
            with bus.batch():
                for _ in repeat(None, order["count"]):
                    bus.publish("benchmark.fd", payload, fds=fds)
            bus.flush()
            answer(started)


def subscribe(runtime: str, address: str) -> None:
    """Closes each descriptor; answers when the subscription is in force, and when the last message was taken."""
    run(runtime, _subscribe, _subscribe_blocking, address)


async def _subscribe(connect: Connect, address: str) -> None:
    async with connect(address) as bus:
        for order in orders():
            left = order["count"]
            async with bus.subscribe("benchmark.fd") as messages:
                answer()
                async for message in messages:
                    message.close()
                    left -= 1
                    if not left:
                        break
                ended = time.monotonic()
            answer(ended)


def _subscribe_blocking(address: str) -> None:
    with sockbus.blocking.connect(address) as bus:
        for order in orders():
            left = order["count"]
            with bus.subscribe("benchmark.fd") as messages:
                answer()
                for message in messages:
                    message.close()
                    left -= 1
                    if not left:
                        break
                ended = time.monotonic()
            answer(ended)
