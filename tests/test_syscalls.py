"""What 10,000 small messages cost a broker in system calls and wake-ups: a guard against losing the batches.

Nothing is timed. The broker runs in this process on real sockets, its transports count their calls, and publisher and
subscriber yield by amount alone: what they do by the clock otherwise would make the numbers depend on the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio

from sockbus import Address
from sockbus.broker.config import Config
from sockbus.broker.server import Server
from sockbus.client.client import Client
from sockbus.transport import listener
from sockbus.transport.base import Blocked, Buffer, Transport
from sockbus.trio import connect

MESSAGES = 10_000
SIZE = 64
# Of the broker, for each message that it takes and gives. Linux 6.18 needs 0.004 to 0.008 calls and 0.002 to 0.004
# turns; a call for each message would be 1, a batch for each ten 0.1.
MOST_CALLS = 0.02
MOST_TURNS = 0.01


class Calls:
    """Counts of what the broker's side of all connections has asked of the kernel."""

    def __init__(self) -> None:
        self.receives = self.sends = 0
        #: bytes of each receive
        self.sizes: list[int] = []

    def counting(self, transport: type[Transport]) -> type[Transport]:
        """A transport that counts."""
        calls = self

        class Counting(transport):  # type: ignore[misc,valid-type]  # whichever it is
            __slots__ = ()

            def receive(self) -> tuple[bytes, tuple[int, ...]] | None:
                calls.receives += 1
                came: tuple[bytes, tuple[int, ...]] | None = super().receive()
                if came is not None:
                    calls.sizes.append(len(came[0]))
                return came

            def send(self, buffers: Sequence[Buffer], fds: Sequence[int] = ()) -> int | Blocked:
                calls.sends += 1
                return super().send(buffers, fds)  # type: ignore[no-any-return]  # as Transport has it

        return Counting


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts what listeners accept from now on; no bus yields by the clock."""
    calls = Calls()
    for name, transport in listener._TRANSPORTS.items():
        monkeypatch.setitem(listener._TRANSPORTS, name, calls.counting(transport))
    monkeypatch.setattr(Client, "yield_seconds", float("inf"))
    return calls


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sockbus-") as name:
        yield Path(name)


async def measure(server: Server, address: str) -> dict[str, int]:
    """By how much the broker's totals rise while the messages pass."""
    async with connect(address) as sender, connect(address) as taker, taker.subscribe("t") as messages:

        async def publish() -> None:
            for _ in range(MESSAGES):
                await sender.publish("t", b"x" * SIZE)

        before = server.hub.counters.as_dict()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            for _ in range(MESSAGES):
                await messages.receive()
        after = server.hub.counters.as_dict()
    return {name: after[name] - before[name] for name in after}


def is_batched(rise: dict[str, int]) -> bool:
    return rise["receives"] + rise["sends"] < MOST_CALLS * MESSAGES and rise["turns"] < MOST_TURNS * MESSAGES


def server_at(transport: str, place: Path) -> Server:
    return Server(Config([Address.parse("tcp:127.0.0.1:0" if transport == "tcp" else f"{transport}:{place}/socket")]))


@pytest.mark.parametrize("transport", ["seqpacket", "stream", "tcp"])
async def test_small_messages_cost_the_broker_few_calls_and_wake_ups(transport: str, calls: Calls, place: Path) -> None:
    server = server_at(transport, place)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        rise = await measure(server, server.addresses[0])
        counters = server.hub.counters
        server.stop()
    assert rise["messages_in"] == rise["messages_out"] == MESSAGES
    assert is_batched(rise), rise
    # What `$SYS.status` says of itself is what was done; it leaves out handshakes and last words.
    assert 0 < counters.receives <= calls.receives <= counters.receives + 10
    assert 0 < counters.sends <= calls.sends <= counters.sends + 10


async def test_guard_notices_a_publisher_that_does_not_batch(
    calls: Calls, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "yield_bytes", 1)
    server = server_at("stream", place)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        rise = await measure(server, server.addresses[0])
        server.stop()
    assert not is_batched(rise), rise


async def test_publisher_fills_its_records(calls: Calls, place: Path) -> None:
    server = server_at("seqpacket", place)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        async with connect(server.addresses[0]) as bus:
            frame = len(bus._client.session.sender.plain("t", b"x" * SIZE))
            calls.sizes.clear()
            for _ in range(MESSAGES):
                await bus.publish("t", b"x" * SIZE)
            await bus.flush()
            sizes = list(calls.sizes)
        server.stop()
    # A record more would be a system call and a wake-up of the broker more. The last is FLUSH.
    each = (1 << 16) // frame
    assert sizes[:-1] == [each * frame] * (MESSAGES // each) + [MESSAGES % each * frame]
