"""How long one question takes, asked after the other, beside raw sockets through a relay.

The promise is about the median of requests in Trio, to a plain and to an async handler. For information: a
message published and answered by a message, both through subscriptions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import repeat

import sockbus.blocking
from sockbus import Message
from sockbus.client.event_loop import EventLoopBus

from .process import Crew
from .programs import Connect, Started, answer, orders, run
from .references import relayed_pair
from .report import Floor, Table
from .rounds import Effort, asking, compare, quantiles

__all__ = ["CASES", "ask", "measure", "serve"]

FLOOR = Floor(2.5, at_most=True)
CASES = ("plain", "async", "pub-sub")
_PROMISED = ("plain", "async")
_BYTES = 64


def measure(transports: Sequence[str], cases: Sequence[str], runtimes: Sequence[str], effort: Effort) -> None:
    """Print the table."""
    table = Table(
        "latency: client -> broker -> server and back; reference: raw sockets in Trio through a Trio relay",
        "p50 us",
        ("p99 us", "client us", "broker us", "server us"),
        effort,
    )
    for transport in transports:
        for runtime in runtimes:
            # Nobody awaits in a program without an event loop.
            known = [name for name in cases if (runtime, name) != ("blocking", "async")]
            with Crew() as crew:
                broker, address = crew.broker(transport)
                options = {"runtime": runtime, "address": address}
                client = crew.start("client", ask, **options)
                servers = [crew.start(f"{name} server", serve, case=name, topic=name, **options) for name in known]
                raw_client, relay, raw_server = relayed_pair(crew, transport)
                crew.answers(client, *servers, raw_client, relay, raw_server)
                bare = asking(crew, raw_client, (relay, raw_server), size=_BYTES)
                for name, server in zip(known, servers, strict=True):
                    bus = asking(crew, client, (broker, server), size=_BYTES, case=name, topic=name)
                    promised = runtime == "trio" and transport != "tcp" and name in _PROMISED
                    table.row(transport, name, runtime, compare(bus, bare, effort), FLOOR if promised else None)


def serve(runtime: str, address: str, case: str, topic: str) -> None:
    """Answers requests or messages until it is ended."""
    run(runtime, _serve, _serve_blocking, address, case, topic)


async def _serve(connect: Connect, address: str, case: str, topic: str) -> None:
    async with connect(address) as bus:
        if case != "pub-sub":
            await bus.serve(topic, _plain if case == "plain" else _async, task_status=Started())
            return
        async with bus.subscribe(f"{topic}.ping") as pings:
            answer()
            async for ping in pings:
                await bus.publish(f"{topic}.pong", ping.payload)


def _serve_blocking(address: str, case: str, topic: str) -> None:
    with sockbus.blocking.connect(address) as bus:
        if case != "pub-sub":
            bus.serve(topic, _plain, task_status=Started())
            return
        with bus.subscribe(f"{topic}.ping") as pings:
            answer()
            for ping in pings:
                bus.publish(f"{topic}.pong", ping.payload)


def _plain(request: Message) -> object:
    return request.payload


async def _async(request: Message) -> object:
    return request.payload


def ask(runtime: str, address: str) -> None:
    """``count`` questions of ``size`` bytes on ``topic``, in the way of ``case``; answers with quantiles."""
    run(runtime, _ask, _ask_blocking, address)


async def _ask(connect: Connect, address: str) -> None:
    async with connect(address) as bus:
        for order in orders():
            way = _ping if order["case"] == "pub-sub" else _request
            answer(quantiles(await way(bus, order["topic"], bytes(order["size"]), order["count"])))


async def _request(bus: EventLoopBus, topic: str, payload: bytes, count: int) -> list[int]:
    nanoseconds = []
    for _ in repeat(None, count):
        started = time.perf_counter_ns()
        await bus.request(topic, payload)
        nanoseconds.append(time.perf_counter_ns() - started)
    return nanoseconds


async def _ping(bus: EventLoopBus, topic: str, payload: bytes, count: int) -> list[int]:
    nanoseconds = []
    async with bus.subscribe(f"{topic}.pong") as pongs:
        for _ in repeat(None, count):
            started = time.perf_counter_ns()
            await bus.publish(f"{topic}.ping", payload)
            await pongs.receive()
            nanoseconds.append(time.perf_counter_ns() - started)
    return nanoseconds


def _ask_blocking(address: str) -> None:
    with sockbus.blocking.connect(address) as bus:
        for order in orders():
            way = _ping_blocking if order["case"] == "pub-sub" else _request_blocking
            answer(quantiles(way(bus, order["topic"], bytes(order["size"]), order["count"])))


def _request_blocking(bus: sockbus.blocking.Bus, topic: str, payload: bytes, count: int) -> list[int]:
    nanoseconds = []
    for _ in repeat(None, count):
        started = time.perf_counter_ns()
        bus.request(topic, payload)
        nanoseconds.append(time.perf_counter_ns() - started)
    return nanoseconds


def _ping_blocking(bus: sockbus.blocking.Bus, topic: str, payload: bytes, count: int) -> list[int]:
    nanoseconds = []
    with bus.subscribe(f"{topic}.pong") as pongs:
        for _ in repeat(None, count):
            started = time.perf_counter_ns()
            bus.publish(f"{topic}.ping", payload)
            pongs.receive()
            nanoseconds.append(time.perf_counter_ns() - started)
    return nanoseconds
