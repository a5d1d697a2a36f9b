"""The broker goes, or the bus was left: every call and iteration says so, after what had come was taken."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sockbus import ConnectionLost
from tests.brokers import BrokerProcess, Program
from tests.contract.peers import program
from tests.contract.runtime import Runtime
from tests.contract.status import fds_of, first, page, settled, until

Calls = dict[str, Callable[[], Awaitable[Any]]]

ENDS = [(signal.SIGKILL, r"clos|broke|reset|gone"), (signal.SIGTERM, "the broker is stopping")]


def end(broker: BrokerProcess, how: signal.Signals) -> None:
    if how == signal.SIGKILL:
        broker.kill()
    else:
        broker.stop(how)


async def iterate(taking: Any) -> None:
    async for _ in taking:
        pass


async def publish_for_ever(bus: Any, topic: str) -> None:
    while True:
        await bus.publish(topic, b"x" * 1000)


async def publish_and_flush(bus: Any, topic: str) -> None:
    await bus.publish(topic)
    await bus.flush()


async def enter(subscription: Any) -> None:
    async with subscription:
        pass


def verbs(bus: Any, quiet: Any) -> Calls:
    """Every way to use a bus, and a quiet subscription of it, for ever."""
    return {
        "iterate": lambda: iterate(quiet),
        "batches": lambda: iterate(quiet.batches()),
        "receive": lambda: quiet.receive(),
        "publish": lambda: publish_for_ever(bus, "stopped"),
        "publish large": lambda: bus.publish("stopped", b"x" * 3_000_000, receipt=True),
        "receipt": lambda: bus.publish("stopped", receipt=True),
        "request": lambda: ask_who_never_answers(bus),
        "serve": lambda: bus.serve("served", lambda _: None),
        "flush": lambda: publish_and_flush(bus, "stopped"),
    }


async def ask_who_never_answers(bus: Any) -> None:
    await until(bus, lambda found: first(found, "servers", "held") != {})
    await bus.request("held", timeout=None)


async def is_lost(call: Callable[[], Awaitable[Any]], text: str) -> str:
    with pytest.raises(ConnectionLost, match=text) as caught:
        await call()
    return str(caught.value)


@pytest.mark.parametrize(("how", "text"), ENDS)
async def test_all_that_waits_hears_that_the_broker_has_gone(
    runtime: Runtime, transport: str, how: signal.Signals, text: str
) -> None:
    async def hold(_: Any) -> None:
        await runtime.event().wait()

    with BrokerProcess() as broker:
        address = broker.address(transport)
        async with (
            runtime.connect(address, reconnect=None) as bus,
            runtime.connect(address, reconnect=None) as other,
            bus.subscribe("quiet") as quiet,
            other.subscribe("stopped", capacity=1, stall=1e9),
        ):
            await bus.publish("stopped", "takes the credit", receipt=True)
            calls = verbs(bus, quiet)

            async def end_when_all_wait() -> None:
                await until(
                    other,
                    lambda found: (
                        first(found, "servers", "served") != {}
                        and first(found, "servers", "held").get("outstanding") == 1
                        and found["queues"]["bytes"] > 1 << 20
                        # A large one that is still coming is not waited for by anybody.
                        and first(found, "subscriptions", "stopped")["waiting"] > 0
                    ),
                )
                await runtime.in_thread(functools.partial(end, broker, how))

            serve = functools.partial(other.serve, "held", hold)
            lost = [functools.partial(is_lost, call, text) for call in (serve, *calls.values())]
            sentences = await runtime.gather(end_when_all_wait, *lost)
            for call in (*calls.values(), lambda: enter(bus.subscribe("new"))):
                await is_lost(call, text)
        assert len(set(sentences[2:])) == 1


@pytest.mark.parametrize(("how", "text"), ENDS)
async def test_what_had_come_is_taken_first(runtime: Runtime, transport: str, how: signal.Signals, text: str) -> None:
    with BrokerProcess() as broker:
        connected = runtime.connect(broker.address(transport), reconnect=None)
        async with connected as bus, bus.subscribe("t") as one, bus.subscribe("t") as two:
            for number in range(500):
                await bus.publish("t", number)
            await bus.flush()
            found = await until(bus, lambda found: found["peers"][0]["queued_bytes"] == 0)
            assert [row["outstanding"] for row in found["subscriptions"]] == [500, 500]
            end(broker, how)
            for messages in (one, two):
                assert [(await messages.receive()).payload for _ in range(500)] == list(range(500))
                await is_lost(messages.receive, text)
                await is_lost(functools.partial(iterate, messages), text)
                await is_lost(functools.partial(iterate, messages.batches()), text)


@pytest.mark.parametrize(("how", "text"), ENDS)
async def test_leaving_raises_what_nobody_has_heard_of_and_may_be_lost(
    runtime: Runtime, transport: str, how: signal.Signals, text: str
) -> None:
    with BrokerProcess() as broker:
        address = broker.address(transport)
        async with (
            runtime.connect(address, reconnect=None) as other,
            other.subscribe("stopped", capacity=1, stall=1e9),
        ):
            with pytest.raises(ConnectionLost, match=text):
                async with runtime.connect(address, reconnect=None) as bus:
                    for number in range(10):
                        await bus.publish("stopped", number)
                    end(broker, how)


@pytest.mark.parametrize(("how", "text"), ENDS)
async def test_leaving_is_quiet_where_nothing_is_lost_or_somebody_has_heard_of_it(
    runtime: Runtime, transport: str, how: signal.Signals, text: str
) -> None:
    with BrokerProcess() as broker:
        address = broker.address(transport)
        async with (
            runtime.connect(address, reconnect=None) as idle,
            runtime.connect(address, reconnect=None) as flushed,
            runtime.connect(address, reconnect=None) as heard,
            idle.subscribe("t"),
        ):
            await flushed.publish("t")
            await heard.publish("t")
            await flushed.flush()
            end(broker, how)
            await is_lost(functools.partial(publish_for_ever, heard, "t"), text)


async def test_exception_of_the_block_comes_through_when_the_broker_has_gone(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        with pytest.raises(ZeroDivisionError) as caught:
            async with runtime.connect(broker.address(transport), reconnect=None) as bus:
                await bus.publish("t", 1)
                broker.kill()
                raise ZeroDivisionError
        (note,) = caught.value.__notes__
        assert note.startswith("besides, leaving the bus failed: ")


async def test_loss_after_a_flush_that_was_given_up_is_not_silent(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        address = broker.address(transport)
        async with runtime.connect(address, reconnect=None) as other, other.subscribe("t", capacity=1, stall=1e9):
            with pytest.raises(ConnectionLost):
                async with runtime.connect(address, reconnect=None) as bus:
                    for number in range(10):
                        await bus.publish("t", number)
                    async with runtime.during(bus.flush):
                        await until(other, lambda found: first(found, "subscriptions", "t")["waiting"] > 0)
                    broker.kill()
                    for _ in range(10):  # so that it has noticed, but not told anybody
                        await runtime.turn()


async def test_publisher_killed_in_mid_message_delivers_nothing_of_it(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        address = broker.address(transport)
        async with runtime.connect(address, reconnect=None) as bus, bus.subscribe("t") as messages:
            await bus.flush()
            before = fds_of(broker.pid)
            with Program(program("begin", address, "t"), stdin=subprocess.PIPE) as publisher:
                assert publisher.out.next() == "ready"
                os.kill(broker.pid, signal.SIGSTOP)  # so that only what the socket takes can leave
                assert publisher.process.stdin is not None
                publisher.process.stdin.write(b"\n")
                publisher.process.stdin.flush()
                assert publisher.out.next() == "begun"
                publisher.process.kill()
                os.kill(broker.pid, signal.SIGCONT)
            await until(bus, lambda found: len(found["peers"]) == 1)
            await bus.publish("t", "after")
            assert (await messages.receive()).payload == "after"
            found = await page(bus)
            assert (found["fds"]["held"], messages.lost) == (0, 0)
            assert settled(lambda: fds_of(broker.pid), before) == before


async def test_new_broker_at_the_same_address_takes_new_connections(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        address = broker.address(transport)
        async with runtime.connect(address, reconnect=None) as bus:
            broker.kill()
            broker.start()
            with pytest.raises(ConnectionLost):
                await page(bus)
            async with (
                runtime.connect(broker.address(transport), reconnect=None) as again,
                again.subscribe("t") as messages,
            ):
                await again.publish("t", "new")
                assert (await messages.receive()).payload == "new"


async def test_bus_that_was_left_is_of_no_use(runtime: Runtime, address: str) -> None:
    async with runtime.connect(address, reconnect=None) as bus:
        messages = bus.subscribe("quiet")
        await messages.__aenter__()
        peer = bus.peer
    for name, call in (*verbs(bus, messages).items(), ("subscribe", lambda: enter(bus.subscribe("new")))):
        with pytest.raises(ConnectionLost, match=r"this bus was left; connect again to use it"):
            await call()
        assert name
    assert bus.peer == peer
    assert bus.transport in address
    await messages.__aexit__(None, None, None)
    await iterate(messages)
