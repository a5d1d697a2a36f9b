"""A bus over several connections: what falls between the end of one and the beginning of the next."""

from __future__ import annotations

from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime
from tests.contract.test_reconnect import Connect, broker, connect, lose, take

__all__ = ["broker", "connect"]


async def test_publish_that_waited_behind_the_buffer_leaves_by_the_next_connection(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    async with connect():
        # So that the bus has another number at the next broker.
        pass
    # More than the window takes at once, so that something still waits when the connection is there.
    async with connect(buffer_bytes=2 << 20) as bus, bus.subscribe("t") as messages:
        await lose(broker, bus)
        published: list[int] = []

        async def publish() -> None:
            for number in range(60):
                await bus.publish("t", [number, b"x" * 50_000])
                published.append(number)

        async def start() -> None:
            while len(published) < 40:
                await runtime.turn()
            for _ in range(100):
                await runtime.turn()
            await runtime.in_thread(broker.start)

        await runtime.gather(publish, start)
        assert [message.payload[0] for message in await take(messages, 60)] == list(range(60))
