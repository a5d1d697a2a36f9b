"""Turns: how often a tight loop lets others run, and that it does so by what it has done, not by the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sockbus.client.client import Client
from sockbus.protocol.frame import Kind
from tests.contract.runtime import EVENT_LOOPS, Runtime
from tests.contract.scripted import Scripted
from tests.contract.test_keeping import script

__all__ = ["script"]

Connect = Callable[..., Any]

COUNT = 2000


class Others:
    """Whoever else is there; ``turns``: how often they were let run."""

    def __init__(self, runtime: Runtime) -> None:
        self.turns = 0
        self._runtime = runtime

    async def __call__(self) -> None:
        while True:
            self.turns += 1
            await self._runtime.turn()


async def test_tight_loops_let_others_run(connect: Connect, runtime: Runtime, topic: str) -> None:
    others = Others(runtime)
    async with connect() as bus, bus.subscribe(topic, capacity=1 << 20) as messages, runtime.during(others):
        body = b"x" * 300
        for _ in range(COUNT):
            await bus.publish(topic, body)
        while_publishing = others.turns
        for _ in range(COUNT):
            await messages.receive()
    # A turn for each 64 KiB published, and for each millisecond.
    assert while_publishing >= 7
    assert others.turns > while_publishing


async def test_publisher_of_large_messages_yields_once_for_64_kib(
    connect: Connect, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    turn = Client.turn

    def count(client: Client) -> Any:
        nonlocal turns
        turns += 1
        return turn(client)

    async with connect() as bus:
        bus._client.yield_seconds = float("inf")
        monkeypatch.setattr(Client, "turn", count)
        for _ in range(100):
            await bus.publish(topic, b"x" * 60_000)
        # A blocking one has sent each when it returns, and has nothing to yield for.
        assert turns <= 50


@pytest.mark.parametrize("runtime", EVENT_LOOPS, indirect=True)
async def test_publisher_to_a_full_socket_yields_by_64_kib_too(
    runtime: Runtime, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "yield_seconds", float("inf"))
    body = b"x" * 100
    others = Others(runtime)

    async def publish() -> None:
        async with runtime.connect(script.address) as bus:
            window = bus._client.session.sender.publishes
            async with runtime.during(others):
                # To a broker that reads nothing meanwhile, as far as its window allows.
                while window.sent_bytes < window.granted_bytes:
                    await bus.publish("t", body)
            assert bus._client.channel.blocked is not None
            each = window.sent_bytes >> 16
            assert each // 2 <= others.turns <= 2 * each
            done.set()

    done = runtime.event()
    connections = []

    def welcome() -> None:
        connections.append(script.accept())
        connections[0].send(connections[0].welcome())

    async def play() -> None:
        await runtime.in_thread(welcome)
        await done.wait()
        connection = connections[0]
        await runtime.in_thread(lambda: connection.send(connection.ok(Kind.FLUSH)))

    await runtime.gather(play, publish)
