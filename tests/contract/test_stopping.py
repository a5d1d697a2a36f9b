"""The broker is told to stop: what waits is delivered first, and every peer is told."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import BrokerClosing
from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime
from tests.contract.status import first, until

Connect = Callable[..., Any]


@pytest.mark.parametrize("options", [{}, {"group": "g"}])
async def test_what_waits_is_delivered_before_the_broker_goes(
    runtime: Runtime, transport: str, options: dict[str, Any]
) -> None:
    count = 2000
    with BrokerProcess() as broker:
        connect = functools.partial(runtime.connect, broker.address(transport), reconnect=None)
        async with connect() as bus, connect() as publisher:
            started, published = runtime.event(), runtime.event()
            taken: list[int] = []

            async def take() -> None:
                async with bus.subscribe("t", capacity=100, **options) as messages:
                    started.set()
                    await published.wait()
                    with pytest.raises(BrokerClosing):
                        while True:
                            taken.append((await messages.receive()).payload)

            async def publish() -> None:
                await started.wait()
                for number in range(count):
                    await publisher.publish("t", number)
                # Taken over or not: it is with the broker.
                await publisher.request("$SYS.status")
                await until(publisher, lambda found: first(found, "subscriptions", "t")["waiting"] > 0)
                published.set()
                await runtime.in_thread(broker.stop)

            await runtime.gather(take, publish)
        assert taken == list(range(count))
        assert "could not be delivered" not in broker.log


async def test_publisher_knows_what_arrived_before_the_broker_went(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        async with runtime.connect(broker.address(transport)) as bus:
            for number in range(100):
                await bus.publish("t", number)
            await bus.flush()
            await bus.publish("t", "last")
            await bus.request("$SYS.status")
            await runtime.in_thread(broker.stop)
            while bus.state == "connected":
                await bus.state_changed()
            assert bus.in_doubt == 0


async def test_nothing_is_delivered_to_whom_the_broker_has_said_goodbye(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        connect = functools.partial(runtime.connect, broker.address(transport), reconnect=None)
        async with (
            connect() as quiet,
            connect() as slow,
            connect() as publisher,
            quiet.subscribe("quiet") as messages,
            slow.subscribe("slow", capacity=1) as waiting,
        ):
            for number in range(3):
                await publisher.publish("slow", number)
            assert (await publisher.publish("quiet", receipt=True)).delivered == 1
            await messages.receive()
            os.kill(broker.pid, signal.SIGTERM)
            with pytest.raises(BrokerClosing):
                await messages.receive()
            receipt = await publisher.publish("quiet", receipt=True)
            assert (receipt.matched, receipt.delivered) == (0, 0)
            for _ in range(3):
                await waiting.receive()
            with pytest.raises(BrokerClosing):
                await waiting.receive()
        await runtime.in_thread(broker.stop)
