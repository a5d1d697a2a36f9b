"""How long one question takes, asked after the other, beside raw sockets through a relay.

The promise is about the median of requests, to a plain and to an async handler. For information: a message
published and answered by a message, both through subscriptions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import repeat

import trio

from sockbus import Message
from sockbus.trio import Bus, connect

from .process import Crew
from .programs import answer, next_order
from .references import relayed_pair
from .report import Floor, Table
from .rounds import Effort, asking, compare, quantiles

__all__ = ["CASES", "measure"]

FLOOR = Floor(2.5, at_most=True)
CASES = ("plain", "async", "pub-sub")
_PROMISED = ("plain", "async")
_BYTES = 64


def measure(transports: Sequence[str], cases: Sequence[str], effort: Effort) -> None:
    """Print the table."""
    table = Table(
        "latency: client -> broker -> server and back; reference: raw sockets in Trio through a Trio relay",
        "p50 us",
        ("p99 us", "client us", "broker us", "server us"),
        effort,
    )
    for transport in transports:
        with Crew() as crew:
            broker, place, tcp = crew.broker()
            address = tcp if transport == "tcp" else f"{transport}:{place}/{transport}"
            client = crew.start("client", ask, address=address)
            server = crew.start("server", serve, address=address)
            raw_client, relay, raw_server = relayed_pair(crew, transport)
            crew.answers(client, server, raw_client, relay, raw_server)
            bare = asking(crew, raw_client, (relay, raw_server), size=_BYTES)
            for name in cases:
                bus = asking(crew, client, (broker, server), size=_BYTES, case=CASES.index(name))
                promised = transport != "tcp" and name in _PROMISED
                table.row(transport, name, compare(bus, bare, effort), FLOOR if promised else None)


def serve(address: str) -> None:
    """Answers requests and messages until it is ended."""
    trio.run(_serve, address)


async def _serve(address: str) -> None:
    async with connect(address) as bus, bus.subscribe("benchmark.ping") as pings, trio.open_nursery() as nursery:
        await nursery.start(bus.serve, "benchmark.plain", _plain)
        await nursery.start(bus.serve, "benchmark.async", _async)
        answer()
        async for ping in pings:
            await bus.publish("benchmark.pong", ping.payload)


def _plain(request: Message) -> object:
    return request.payload


async def _async(request: Message) -> object:
    return request.payload


def ask(address: str) -> None:
    """``count`` questions of ``size`` bytes, in the way that ``case`` numbers; answers with quantiles."""
    trio.run(_ask, address)


async def _ask(address: str) -> None:
    async with connect(address) as bus:
        answer()
        while (order := await next_order()) is not None:
            payload = bytes(order["size"])
            case = CASES[order["case"]]
            if case == "pub-sub":
                found = await _ping(bus, payload, order["count"])
            else:
                found = await _request(bus, f"benchmark.{case}", payload, order["count"])
            answer(quantiles(found))


async def _request(bus: Bus, topic: str, payload: bytes, count: int) -> list[int]:
    nanoseconds = []
    for _ in repeat(None, count):
        started = time.perf_counter_ns()
        await bus.request(topic, payload)
        nanoseconds.append(time.perf_counter_ns() - started)
    return nanoseconds


async def _ping(bus: Bus, payload: bytes, count: int) -> list[int]:
    nanoseconds = []
    async with bus.subscribe("benchmark.pong") as pongs:
        for _ in repeat(None, count):
            started = time.perf_counter_ns()
            await bus.publish("benchmark.ping", payload)
            await pongs.receive()
            nanoseconds.append(time.perf_counter_ns() - started)
    return nanoseconds
