"""Last values: what a topic's publisher left there for those who subscribe later, descriptors too."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sockbus import LimitExceeded, SubscriptionStalled, Will
from tests.brokers import BrokerProcess
from tests.contract.peers import peer
from tests.contract.runtime import Runtime
from tests.contract.status import fds_of, first, page, settled, until

Connect = Callable[..., Any]


@pytest.fixture
def kept(request: pytest.FixtureRequest, topic: str) -> Iterator[str]:
    """A topic whose values, and those below it, are cleared after the test."""
    from sockbus.blocking import connect as connect_blocking

    broker: BrokerProcess = request.getfixturevalue("common_broker")
    yield topic
    with connect_blocking(broker.unix) as bus:
        for row in bus.request("$SYS.retained").payload:
            if row["topic"].split(".")[0] == topic:
                bus.publish(row["topic"], retain=True)


@contextlib.contextmanager
def memory(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("kept")
    os.write(fd, content)
    try:
        yield fd
    finally:
        os.close(fd)


def seen(message: Any) -> tuple[Any, bool]:
    return message.payload, message.retained


async def take(messages: Any, count: int) -> list[tuple[Any, bool]]:
    return [seen(await messages.receive()) for _ in range(count)]


async def test_last_value_comes_first_and_is_marked(connect: Connect, kept: str) -> None:
    async with connect() as bus:
        for number in range(3):
            assert await bus.publish(kept, number, retain=True) is None
        await bus.publish(kept, "not kept")
        async with bus.subscribe(kept) as messages:
            await bus.publish(kept, "live")
            assert await take(messages, 2) == [(2, True), ("live", False)]


async def test_message_to_be_kept_is_delivered_as_a_live_one(connect: Connect, kept: str) -> None:
    async with connect() as bus, bus.subscribe(kept) as messages:
        await bus.publish(kept, 1, retain=True)
        assert await take(messages, 1) == [(1, False)]


async def test_receipt_of_a_message_to_be_kept_counts_those_who_had_it(connect: Connect, kept: str) -> None:
    async with connect() as bus, bus.subscribe(kept) as messages:
        receipt = await bus.publish(kept, 1, retain=True, receipt=True)
        assert (receipt.matched, receipt.delivered) == (1, 1)
        assert await take(messages, 1) == [(1, False)]
        async with bus.subscribe(kept) as later:
            assert await take(later, 1) == [(1, True)]


async def test_pattern_gets_all_that_it_matches_each_from_who_published_it(connect: Connect, kept: str) -> None:
    async with connect(name="first") as first, connect(name="second") as second:
        await first.publish(f"{kept}.a", 1, retain=True, headers={"unit": "K"})
        await second.publish(f"{kept}.b", 2, retain=True)
        await second.publish(f"{kept}.b.deep", 3, retain=True)
        async with first.subscribe(f"{kept}.*") as messages:
            found = [await messages.receive() for _ in range(2)]
        assert [(m.topic, m.payload, m.sender.name) for m in found] == [
            (f"{kept}.a", 1, "first"),
            (f"{kept}.b", 2, "second"),
        ]
        assert (found[0].headers, found[1].sender.id) == ({"unit": "K"}, second.peer.id)


async def test_nothing_clears_and_is_delivered(connect: Connect, kept: str) -> None:
    async with connect() as bus, bus.subscribe(kept) as messages:
        await bus.publish(kept, 1, retain=True)
        await bus.publish(kept, None, retain=True)
        assert await take(messages, 2) == [(1, False), (None, False)]
        async with bus.subscribe(kept) as later:
            await bus.publish(kept, "live")
            assert await take(later, 1) == [("live", False)]
        assert [row for row in (await bus.request("$SYS.retained")).payload if row["topic"] == kept] == []


async def test_value_of_its_own_size_is_kept(connect: Connect, kept: str) -> None:
    large = os.urandom(3 << 20)
    async with connect() as bus:
        await bus.publish(kept, large, retain=True)
        async with bus.subscribe(kept) as messages, bus.subscribe(kept, capacity=1) as others:
            for subscription in (messages, others):
                message = await subscription.receive()
                assert message.retained
                assert message.payload == large


async def test_no_gap_and_no_duplicate_between_kept_and_live(runtime: Runtime, connect: Connect, kept: str) -> None:
    """Whenever a subscription begins, its first value is followed by the next, and so on."""
    done = runtime.event()
    async with connect() as sender, connect() as bus:

        async def publish() -> None:
            for number in range(400):
                await sender.publish(kept, number, retain=True)
            done.set()

        async with runtime.during(publish):
            while True:
                was_done = done.is_set()
                async with bus.subscribe(kept, capacity=3) as messages:
                    first = await messages.receive()
                    assert first.retained or first.payload == 0
                    numbers = [first.payload]
                    while len(numbers) < 20 and numbers[-1] < 399:
                        message = await messages.receive()
                        assert not message.retained
                        numbers.append(message.payload)
                    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                if was_done:
                    break


async def test_kept_values_wait_for_credit_and_keep_their_place(connect: Connect, kept: str) -> None:
    async with connect() as bus, connect() as sender:
        for number in range(40):
            await sender.publish(f"{kept}.k{number}", number, retain=True)
        async with bus.subscribe(f"{kept}.*", capacity=2) as messages:
            await sender.publish(f"{kept}.k0", "live", retain=True)
            for number in range(40):
                await sender.publish(f"{kept}.k{number}", "again", retain=True)
            assert await take(messages, 40) == [(number, True) for number in range(40)]
            assert await take(messages, 41) == [("live", False)] + [("again", False)] * 40
            assert messages.lost == 0


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest"])
async def test_no_policy_drops_kept_values_and_live_ones_stand_behind(
    connect: Connect, kept: str, overflow: str
) -> None:
    async with connect() as bus, connect() as sender:
        for number in range(40):
            await sender.publish(f"{kept}.k{number:02}", number, retain=True)
        async with bus.subscribe(f"{kept}.*", capacity=3, overflow=overflow) as messages:
            for number in range(100):
                await sender.publish(f"{kept}.live{number}", number)
            await sender.flush()
            found = [await messages.receive() for _ in range(40)]
            assert list(map(seen, found)) == [(number, True) for number in range(40)]
            assert [message.lost for message in found] == [0] * 40
            await sender.publish(f"{kept}.end", "end")
            rest = []
            # What was lost last has no message behind it.
            while len(rest) + messages.lost < 101:
                if messages.lost or len(rest) < 3:
                    message = await messages.receive()
                    assert not message.retained
                    rest.append(message)
                else:
                    await page(bus)
            if overflow != "drop_newest":
                assert rest[-1].payload == "end"
            assert sum(message.lost for message in rest) <= messages.lost


async def test_subscription_that_the_broker_ends_has_kept_values_first(runtime: Runtime, transport: str) -> None:
    with BrokerProcess() as broker:
        async with runtime.connect(broker.address(transport)) as bus, runtime.connect(broker.unix) as sender:
            for number in range(8):
                await sender.publish(f"k.{number}", number, retain=True)
            async with bus.subscribe("k.*", capacity=8, overflow="disconnect") as messages:
                for number in range(100):
                    await sender.publish("k.live", number)
                await until(sender, lambda page: not first(page, "subscriptions", "k.*"))
                found = []
                with pytest.raises(SubscriptionStalled):
                    while True:
                        found.append(await messages.receive())
                assert list(map(seen, found))[:8] == [(number, True) for number in range(8)]
                assert messages.lost > 0
            async with bus.subscribe("k.*", capacity=2, stall=0.2) as messages:
                await until(sender, lambda page: not first(page, "subscriptions", "k.*"))
                found = []
                with pytest.raises(SubscriptionStalled, match=r"0\.2 s"):
                    while True:
                        found.append(await messages.receive())
                assert list(map(seen, found)) == [(0, True), (1, True)]
                assert messages.lost == 6
            await bus.publish("k.0", "goes on", receipt=True)


async def test_group_gets_kept_values_once(connect: Connect, kept: str) -> None:
    async with connect() as bus, connect() as other:
        for number in range(3):
            await bus.publish(f"{kept}.{number}", number, retain=True)
        async with bus.subscribe(f"{kept}.*", group="g") as first:
            assert await take(first, 3) == [(0, True), (1, True), (2, True)]
            async with other.subscribe(f"{kept}.*", group="g") as second:
                await bus.publish(f"{kept}.x", "live")
                await bus.publish(f"{kept}.x", "live")
                # One each: who joins a group later finds nothing there.
                assert await take(second, 1) == [("live", False)]


async def test_batches_and_iteration_show_what_is_kept(connect: Connect, kept: str) -> None:
    async with connect() as bus:
        await bus.publish(f"{kept}.a", 1, retain=True)
        async with bus.subscribe(f"{kept}.*") as messages:
            await bus.publish(f"{kept}.a", 2)
            found: list[Any] = []
            async for batch in messages.batches():
                found += map(seen, batch)
                if len(found) == 2:
                    break
            assert found == [(1, True), (2, False)]


async def test_message_that_cannot_be_kept_is_neither_kept_nor_delivered(runtime: Runtime, transport: str) -> None:
    with BrokerProcess("--limit", "retained=1") as broker:
        async with runtime.connect(broker.address(transport)) as bus, bus.subscribe("*") as messages:
            await bus.publish("a", 1, retain=True)
            for receipt in (False, True):
                with pytest.raises(LimitExceeded, match="retained = 1"):
                    await bus.publish("b", 2, retain=True, receipt=receipt)
            await bus.publish("b", 3)
            assert await take(messages, 2) == [(1, False), (3, False)]
            await bus.publish("a", retain=True)
            await bus.publish("b", 4, retain=True)
            async with bus.subscribe("*") as later:
                assert await take(later, 1) == [(4, True)]
            await bus.flush()


async def test_will_is_kept(connect: Connect, kept: str) -> None:
    with contextlib.suppress(Exception):
        async with connect(will=Will(kept, "gone", retain=True)) as bus:
            number = bus.peer.id
            await bus.publish(kept, "here", retain=True)
            bus._waits.channel.sock.shutdown(socket.SHUT_RDWR)
    async with connect() as bus, bus.subscribe("$SYS.peer.left"), bus.subscribe(kept) as messages:
        message = await messages.receive()
        while message.payload != "gone":
            message = await messages.receive()
        assert message.sender.id == number
        async with bus.subscribe(kept) as later:
            assert await take(later, 1) == [("gone", True)]


@pytest.mark.parametrize("transport", ["seqpacket", "stream"])
class TestDescriptors:
    """Kept descriptors, on links that carry some."""

    async def test_fds_are_kept_and_every_later_subscriber_has_its_own(self, connect: Connect, kept: str) -> None:
        async with connect() as bus:
            with memory(b"kept") as fd:
                await bus.publish(kept, "file", fds=[fd, fd], retain=True)
            for _ in range(3):
                async with bus.subscribe(kept) as messages:
                    with await messages.receive() as message:
                        assert message.retained
                        assert [os.pread(fd.fileno(), 9, 0) for fd in message.fds] == [b"kept", b"kept"]

    async def test_nothing_with_fds_is_a_value(self, connect: Connect, kept: str) -> None:
        async with connect() as bus:
            with memory(b"kept") as fd:
                await bus.publish(kept, None, fds=[fd], retain=True)
            async with bus.subscribe(kept) as messages:
                with await messages.receive() as message:
                    assert (message.payload, len(message.fds)) == (None, 1)

    async def test_fds_outlive_the_process_that_opened_them(self, connect: Connect, address: str, kept: str) -> None:
        with peer("lend", address, kept) as owner:
            owner.signal(signal.SIGKILL)
            owner.code()
        async with connect() as bus, bus.subscribe(kept) as messages:
            with await messages.receive() as message:
                assert message.retained
                assert (message.sender.name, message.sender.pid) == ("lender", owner.process.pid)
                listener = message.fds[0].socket()
            with listener, socket.create_connection(listener.getsockname()) as client:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.sendall(b"hello")
                assert client.recv(5) == b"hello"

    async def test_broker_holds_no_fds_of_what_was_replaced_or_cleared(
        self, connect: Connect, common_broker: BrokerProcess, kept: str
    ) -> None:
        async with connect() as bus:
            before, held = fds_of(common_broker.pid), (await page(bus))["retained"]["fds"]
            for number in range(50):
                with memory(b"%d" % number) as fd:
                    await bus.publish(f"{kept}.a", number, fds=[fd] * 3, retain=True)
            async with bus.subscribe(f"{kept}.a") as messages:
                with await messages.receive() as message:
                    assert os.pread(message.fds[0].fileno(), 9, 0) == b"49"
            assert (await page(bus))["retained"]["fds"] == held + 3
            await bus.publish(f"{kept}.a", retain=True)
            assert (await page(bus))["retained"]["fds"] == held
            assert settled(lambda: fds_of(common_broker.pid), before) == before


async def test_kept_fds_where_the_link_carries_none(runtime: Runtime, common_broker: BrokerProcess, kept: str) -> None:
    async with runtime.connect(common_broker.stream) as local, runtime.connect(common_broker.tcp) as bus:
        with memory(b"kept") as fd:
            await local.publish(kept, 1, fds=[fd], retain=True)
        async with bus.subscribe(kept) as rejecting, bus.subscribe(kept, fds="strip") as stripping:
            message = await stripping.receive()
            assert (message.payload, message.retained, message.fds_missing) == (1, True, 1)
            await local.publish(kept, 2)
            message = await rejecting.receive()
            assert (message.payload, message.retained, message.lost) == (2, False, 1)
