"""Messages with one file descriptor each, beside a bare socket pair; for information.

The publisher sends the same memfd again and again, the subscriber closes what it gets. Only UNIX sockets pass
descriptors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import repeat

import trio

from sockbus.trio import connect

from .process import Crew
from .programs import answer, next_order
from .references import fd_pair
from .report import Table
from .rounds import Effort, compare, transfer

__all__ = ["CASES", "measure"]

CASES = ("1-fd",)
_BYTES = 64


def measure(transports: Sequence[str], cases: Sequence[str], effort: Effort) -> None:
    """Print the table."""
    table = Table(
        "fds: 64-byte messages with an fd each; reference: a bare socket pair, one sendmsg and one recvmsg for each",
        "messages/s",
        ("pub us/msg", "broker us", "sub us"),
        effort,
    )
    for transport in transports:
        with Crew() as crew:
            broker, place, _ = crew.broker()
            address = f"{transport}:{place}/{transport}"
            publisher = crew.start("publisher", publish, address=address)
            subscriber = crew.start("subscriber", subscribe, address=address)
            sender, receiver = fd_pair(crew, transport)
            crew.answers(publisher, subscriber, sender, receiver)
            for name in cases:
                bus = transfer(crew, publisher, (subscriber,), (broker,), size=_BYTES)
                bare = transfer(crew, sender, (receiver,), (), size=_BYTES)
                table.row(transport, name, compare(bus, bare, effort))


def publish(address: str) -> None:
    """``count`` messages with a memfd each; answers when it began."""
    trio.run(_publish, address)


async def _publish(address: str) -> None:
    file = os.memfd_create("benchmark")
    async with connect(address) as bus:
        answer()
        while (order := await next_order()) is not None:
            payload = bytes(order["size"])
            fds = (file,)
            started = time.monotonic()
            for _ in repeat(None, order["count"]):
                await bus.publish("benchmark.fd", payload, fds=fds)
            await bus.flush()
            answer(started)


def subscribe(address: str) -> None:
    """Closes each descriptor; answers when the subscription is in force, and when the last message was taken."""
    trio.run(_subscribe, address)


async def _subscribe(address: str) -> None:
    async with connect(address) as bus:
        answer()
        while (order := await next_order()) is not None:
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
