"""Asyncio and blocking programs beside the same programs in Trio, all taking turns at one broker.

Throughput is of 64-byte messages on one topic, publisher and subscriber in the same runtime. Latency is of requests
to a plain handler, with two kinds of server: ``own-server`` has the client's runtime at both ends, and is what the
promise is about; ``trio-server`` is Trio's for every client, so that only the clients differ. What a client spends
on a request has rows of its own, ``own-server-cpu`` and ``trio-server-cpu``. Trio's rows show what its programs
spend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from . import latency, throughput
from .process import Crew
from .report import Floor, Table
from .rounds import Effort, Sample, asking, compare_samples, take_turns, transfer

__all__ = ["CASES", "measure"]

K = TypeVar("K")

CASES = ("64B", "own-server", "trio-server")
REFERENCE = "trio"
THROUGHPUT_FLOORS = {"asyncio": Floor(1.0), "blocking": Floor(1.0)}
P50_FLOORS = {"blocking": Floor(1.0, at_most=True)}
CPU_FLOORS = {"blocking": Floor(0.67, at_most=True)}
_BYTES = 64


def measure(transports: Sequence[str], cases: Sequence[str], runtimes: Sequence[str], effort: Effort) -> None:
    """Print a table of throughput and one of latency."""
    if "64B" in cases:
        _throughput(transports, runtimes, effort)
    servers = [case for case in cases if case != "64B"]
    if servers:
        _latency(transports, servers, runtimes, effort)


def _throughput(transports: Sequence[str], runtimes: Sequence[str], effort: Effort) -> None:
    table = Table(
        "throughput: one publisher -> broker -> one subscriber; reference: the same programs in Trio",
        "messages/s",
        ("pub us/msg", "broker us", "sub us"),
        effort,
    )
    for transport in transports:
        names = dict.fromkeys((REFERENCE, *runtimes))
        found = _joined(_transfers(transport, names, sitting) for sitting in effort.sittings())
        floors = THROUGHPUT_FLOORS if transport != "tcp" else {}
        for runtime in runtimes:
            comparison = compare_samples(found[runtime], found[REFERENCE])
            table.row(transport, "64B", runtime, comparison, floors.get(runtime))


def _transfers(transport: str, runtimes: Mapping[str, None], effort: Effort) -> dict[str, list[Sample]]:
    """The samples of each runtime."""
    with Crew() as crew:
        broker, address = crew.broker(transport)
        publishers = [
            crew.start(f"{name} publisher", throughput.publish, runtime=name, address=address) for name in runtimes
        ]
        subscribers = [
            crew.start(f"{name} subscriber", throughput.subscribe, runtime=name, address=address) for name in runtimes
        ]
        crew.answers(*publishers, *subscribers)
        runs = [
            transfer(crew, publisher, (subscriber,), (broker,), size=_BYTES, topics=1)
            for publisher, subscriber in zip(publishers, subscribers, strict=True)
        ]
        return dict(zip(runtimes, take_turns(runs, effort), strict=True))


def _latency(transports: Sequence[str], servers: Sequence[str], runtimes: Sequence[str], effort: Effort) -> None:
    table = Table(
        "latency: client -> broker -> plain handler and back; reference: client and server in Trio",
        "us",
        ("p99 us", "client us", "broker us", "server us"),
        effort,
    )
    # Who asks whom. Trio's server is the own one of Trio's client.
    pairs = dict.fromkeys((name, name if case == "own-server" else REFERENCE) for case in servers for name in runtimes)
    for transport in transports:
        everyone = {(REFERENCE, REFERENCE): None} | pairs
        found = _joined(_questions(transport, everyone, sitting) for sitting in effort.sittings())
        reference = found[REFERENCE, REFERENCE]
        for client, server in pairs:
            own = client == server
            case = "own-server" if own else "trio-server"
            promised = own and transport != "tcp"
            samples = found[client, server]
            p50, cpu = compare_samples(samples, reference), compare_samples(_cpu(samples), _cpu(reference))
            table.row(transport, case, client, p50, P50_FLOORS.get(client) if promised else None)
            table.row(transport, f"{case}-cpu", client, cpu, CPU_FLOORS.get(client) if promised else None)


def _questions(
    transport: str, pairs: Mapping[tuple[str, str], None], effort: Effort
) -> dict[tuple[str, str], list[Sample]]:
    """The samples of each client with its server."""
    with Crew() as crew:
        broker, address = crew.broker(transport)
        clients = {
            name: crew.start(f"{name} client", latency.ask, runtime=name, address=address)
            for name in dict.fromkeys(client for client, _ in pairs)
        }
        servers = {
            name: crew.start(f"{name} server", latency.serve, runtime=name, address=address, case="plain", topic=name)
            for name in dict.fromkeys(server for _, server in pairs)
        }
        crew.answers(*clients.values(), *servers.values())
        runs = [
            asking(crew, clients[client], (broker, servers[server]), size=_BYTES, case="plain", topic=server)
            for client, server in pairs
        ]
        return dict(zip(pairs, take_turns(runs, effort), strict=True))


def _joined(sittings: Iterable[dict[K, list[Sample]]]) -> dict[K, list[Sample]]:
    """The samples of all sittings."""
    joined: dict[K, list[Sample]] = {}
    for sitting in sittings:
        for key, samples in sitting.items():
            joined.setdefault(key, []).extend(samples)
    return joined


def _cpu(samples: Sequence[Sample]) -> list[Sample]:
    """The client's processor time for each question, as what is compared."""
    return [replace(sample, value=sample.others[1], others=()) for sample in samples]
