"""The block of a connection and Trio's scopes: what is cancelled, what still works, and what comes out of the block."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from sockbus import LimitExceeded
from sockbus.trio import Bus, connect
from tests.brokers import BrokerProcess, Program
from tests.contract.status import fds_of, first, page, settled, until


async def test_cancelled_block_is_left_at_once(address: str, topic: str) -> None:
    async with connect(address) as taker, taker.subscribe(topic, capacity=1) as messages:
        with trio.CancelScope() as scope:
            async with connect(address) as bus:
                for number in range(10):
                    await bus.publish(topic, number)
                # Flushing would wait for the taker.
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert (await messages.receive()).payload == 0


async def test_block_that_was_cancelled_but_not_told_is_left_at_once(address: str, topic: str) -> None:
    async with connect(address) as taker, taker.subscribe(topic, capacity=1):
        with trio.CancelScope() as scope:
            async with connect(address) as bus:
                await bus.publish(topic, 1)
                await bus.publish(topic, 2)
                await until(taker, lambda found: first(found, "subscriptions", topic)["waiting"] > 0)
                scope.cancel()
        assert scope.cancelled_caught


async def test_connecting_in_a_cancelled_scope_is_cancelled(address: str) -> None:
    before = fds_of(os.getpid())
    with trio.CancelScope() as scope:
        scope.cancel()
        async with connect(address):
            raise AssertionError("the block was entered")
    assert scope.cancelled_caught
    assert settled(lambda: fds_of(os.getpid()), before) == before


async def test_cleanup_in_a_shielded_scope_can_use_the_bus(address: str, topic: str) -> None:
    async with connect(address) as taker, taker.subscribe(topic) as messages, trio.open_nursery() as nursery:
        await nursery.start(functools.partial(serve_echo, taker, f"{topic}.echo"))
        with trio.CancelScope() as scope:
            async with connect(address) as bus, bus.subscribe(f"{topic}.own") as own:
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await bus.publish(f"{topic}.own", "to myself")
                        assert (await own.receive()).payload == "to myself"
                        assert (await bus.request(f"{topic}.echo", b"x" * 100_000)).payload == b"x" * 100_000
                        await bus.publish(topic, "last", receipt=True)
                        await bus.flush()
        assert scope.cancelled_caught
        assert (await messages.receive()).payload == "last"
        nursery.cancel_scope.cancel()


async def serve_echo(bus: Bus, topic: str, *, task_status: trio.TaskStatus[None]) -> None:
    await bus.serve(topic, lambda request: request.payload, task_status=task_status)


async def test_whole_connection_in_a_shielded_scope_of_a_cancelled_block_works(address: str, topic: str) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with trio.CancelScope(shield=True):
            async with connect(address) as bus, bus.subscribe(topic) as messages:
                await bus.publish(topic, "x")
                assert (await messages.receive()).payload == "x"
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_timeout_around_a_block_is_only_a_timeout(address: str, topic: str) -> None:
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(0.05):
            async with connect(address) as bus, bus.subscribe(topic) as messages:
                await messages.receive()


class Unusual(Exception):
    """What a program raises."""


async def fail() -> None:
    raise Unusual


async def test_groups_of_the_programs_own_come_through_as_they_are(address: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with connect(address), trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)
    assert [type(error) for error in caught.value.exceptions] == [Unusual, Unusual]


async def test_exception_beside_a_bus_cancels_what_uses_it_and_comes_out_once(address: str, topic: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery, connect(address) as bus, bus.subscribe(topic) as messages:
            nursery.start_soon(messages.receive)
            nursery.start_soon(bus.serve, topic, print)
            await page(bus)
            nursery.start_soon(fail)
            await trio.sleep_forever()
    assert caught.group_contains(Unusual, depth=1)
    assert len(caught.value.exceptions) == 1


@pytest.mark.parametrize("stopped", ["subscriber", "broker"])
async def test_leaving_gives_up_when_the_broker_does_not_take_over(
    transport: str, topic: str, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sockbus.client.event_loop.LEAVE_SECONDS", 0.1)
    with BrokerProcess() as broker:
        address = broker.address(transport)
        async with connect(address) as taker, taker.subscribe(topic, capacity=1):
            with pytest.raises(LimitExceeded, match=r"within 0\.1 s of leaving; does a subscriber not read\?"):
                async with connect(address) as bus:
                    await bus.publish(topic, 1)
                    await bus.publish(topic, 2)
                    if stopped == "broker":
                        os.kill(broker.pid, signal.SIGSTOP)
            with pytest.raises(Unusual) as caught:
                async with cannot_leave(broker, topic, transport, stopped):
                    raise Unusual
            os.kill(broker.pid, signal.SIGCONT)
    assert [note[:32] for note in caught.value.__notes__] == ["besides, leaving the bus failed:"]


@contextlib.asynccontextmanager
async def cannot_leave(broker: BrokerProcess, topic: str, transport: str, stopped: str) -> AsyncIterator[None]:
    os.kill(broker.pid, signal.SIGCONT)
    async with connect(broker.address(transport)) as bus:
        await bus.publish(topic, 3)
        if stopped == "broker":
            os.kill(broker.pid, signal.SIGSTOP)
        yield


async def test_task_that_enters_another_connection_leaves_them_in_order(address: str, topic: str) -> None:
    async def relay(*, task_status: trio.TaskStatus[None]) -> None:
        async with connect(address) as inner, inner.subscribe(f"{topic}.a") as messages:
            task_status.started()
            async for message in messages:
                await inner.publish(f"{topic}.b", message.payload + 1)

    async with connect(address) as outer, outer.subscribe(f"{topic}.b") as messages, trio.open_nursery() as nursery:
        for _ in range(3):
            await nursery.start(relay)
        await outer.publish(f"{topic}.a", 1)
        assert [(await messages.receive()).payload for _ in range(3)] == [2, 2, 2]
        nursery.cancel_scope.cancel()


async def test_handlers_task_ends_with_serve(address: str, topic: str) -> None:
    ended = trio.Event()

    async def handler(_: Any) -> None:
        try:
            called.set()
            await trio.sleep_forever()
        finally:
            ended.set()

    called = trio.Event()
    async with connect(address) as bus:
        with pytest.raises(ExceptionGroup):
            async with trio.open_nursery() as nursery:
                await nursery.start(bus.serve, topic, handler)
                nursery.start_soon(bus.request, topic)
                await called.wait()
                nursery.start_soon(fail)
        assert ended.is_set()
        assert first(await page(bus), "servers", topic) == {}


INTERRUPTED = """
import os, signal, sys, trio
from sockbus.fd import closing_settled
from sockbus.trio import connect
from sockbus.transport import fds

receive = fds.receive_with_fds
came = 0

def interrupted(sock, size):
    # As if Ctrl-C came between recvmsg(2) and what stores the descriptors.
    global came
    found = receive(sock, size)
    if found is not None and found[1]:
        came += 1
        if came == 1:
            signal.raise_signal(signal.SIGINT)
    return found

for name in ("stream", "seqpacket"):
    sys.modules["sockbus.transport." + name].receive_with_fds = interrupted

async def main():
    before = len(os.listdir("/proc/self/fd"))
    try:
        async with connect(sys.argv[1]) as bus, bus.subscribe("t") as messages:
            for _ in range(20):
                await bus.publish("t", fds=[0])
                (await messages.receive()).close()
    finally:
        closing_settled(10)
        print(len(os.listdir("/proc/self/fd")) - before, "left", flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("transport", ["seqpacket", "stream"], indirect=True)
def test_interrupt_does_not_come_between_receiving_fds_and_owning_them(address: str) -> None:
    with Program([sys.executable, "-c", INTERRUPTED, address]) as program:
        assert program.out.next() == "0 left"
        assert program.code() == -signal.SIGINT
        assert "KeyboardInterrupt" in program.err.rest().decode().splitlines()[-1]
