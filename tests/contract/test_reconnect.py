"""The broker goes and comes again: what is in force again, what is sent once, and what is said of the rest."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sockbus.blocking.bus
import sockbus.client.event_loop
from sockbus import BrokerClosing, BusState, ConnectionLost, Message, Receipt, RequestTimeout
from tests.brokers import BrokerProcess
from tests.contract.runtime import EVENT_LOOPS, Runtime
from tests.contract.status import first, page

Connect = Callable[..., Any]


@pytest.fixture
def broker() -> Iterator[BrokerProcess]:
    """One that may be killed, and is started again at the same addresses."""
    with BrokerProcess() as broker:
        yield broker


@pytest.fixture
def connect(runtime: Runtime, broker: BrokerProcess, transport: str) -> Connect:
    return lambda **options: runtime.connect(broker.address(transport), **options)


async def reaches(bus: Any, state: BusState) -> None:
    while bus.state is not state:
        await bus.state_changed()


async def lose(broker: BrokerProcess, *buses: Any) -> None:
    """Kill the broker, and wait until the buses know."""
    broker.kill()
    for bus in buses:
        await reaches(bus, BusState.WAITING)


async def find_again(broker: BrokerProcess, *buses: Any) -> None:
    """Start the broker again, and wait until the buses have found it."""
    broker.start()
    for bus in buses:
        await reaches(bus, BusState.CONNECTED)


class Held:
    """A handler that gives back what it gets, and holds what is called "first" until it may go on."""

    def __init__(self, runtime: Runtime) -> None:
        self.asked = runtime.event()
        self.go_on = runtime.event()

    async def answer(self, request: Message) -> Any:
        if request.payload == "first":
            self.asked.set()
            await self.go_on.wait()
        return request.payload


async def take(messages: Any, count: int) -> list[Message]:
    return [await messages.receive() for _ in range(count)]


async def test_everything_is_in_force_again(connect: Connect, runtime: Runtime, broker: BrokerProcess) -> None:
    async with (
        connect(name="one") as bus,
        bus.subscribe("plain.>") as plain,
        bus.subscribe("shared", group="g", capacity=7) as shared,
        bus.subscribe("quiet") as quiet,
        runtime.serving(bus, "upper", lambda request: request.payload.upper()),
    ):
        before = bus.peer
        await bus.publish("plain.x", 0, receipt=True)
        await lose(broker, bus)
        await find_again(broker, bus)
        found = await page(bus)
        assert [row["pattern"] for row in found["subscriptions"]] == ["plain.>", "shared", "quiet"]
        assert first(found, "subscriptions", "shared")["group"] == "g"
        assert (bus.peer.name, bus.peer.transport) == (before.name, before.transport)
        await bus.publish("shared", 1)
        await bus.publish("plain.x", 2)
        assert (await bus.request("upper", "again")).payload == "AGAIN"
        assert [(m.payload, m.interrupted) for m in await take(plain, 2)] == [(0, False), (2, True)]
        await bus.publish("plain.x", 3)
        assert not (await plain.receive()).interrupted
        assert (await shared.receive()).interrupted
        assert [each.interrupted for each in (plain, shared, quiet)] == [1, 1, 1]


@pytest.mark.parametrize("overflow", ["block", "drop_oldest"])
async def test_who_takes_nothing_meanwhile_reads_of_each_interruption_where_it_was(
    connect: Connect, broker: BrokerProcess, overflow: str
) -> None:
    """What had come stays in front of kept values that come again, and these in front of what is new."""
    async with connect() as other, connect() as bus, bus.subscribe(">", overflow=overflow) as messages:
        mailbox = getattr(messages, "_subscription", messages)._taking.mailbox

        async def until_there_are(count: int) -> None:
            while mailbox.ready < count:
                with contextlib.suppress(ConnectionLost):
                    await page(bus)

        for number in range(3):
            await other.publish("kept", f"kept{number}", retain=True)
            await other.publish(f"t.{number}", number)
            await other.flush()
            await until_there_are(3 * number + 2)
            bus._client.channel.sock.shutdown(socket.SHUT_RDWR)
            await until_there_are(3 * number + 3)
        expected: list[tuple[Any, bool, bool]] = []
        for number in range(3):
            expected += [(f"kept{number}", False, False), (number, False, False), (f"kept{number}", True, True)]
        came = await take(messages, 9)
        assert [(message.payload, message.retained, message.interrupted) for message in came] == expected
        assert [message.lost for message in came] == 9 * [0]
        # No credit was given back that is not owed: the broker would end the connection.
        await other.publish("t.end", receipt=True)
        assert not (await messages.receive()).interrupted
        assert (messages.lost, messages.interrupted) == (0, 3)


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "latest"])
async def test_capacity_bounds_what_waits_over_all_connections(
    connect: Connect, broker: BrokerProcess, overflow: str
) -> None:
    kept = [f"kept.{number}" for number in range(4)]
    async with connect() as other, connect() as bus, contextlib.AsyncExitStack() as stack:
        for topic in kept:
            await other.publish(topic, topic, retain=True)
        messages = await stack.enter_async_context(bus.subscribe("kept.*", overflow=overflow, capacity=4))
        mailbox = getattr(messages, "_subscription", messages)._taking.mailbox
        while mailbox.ready < 4:
            await page(bus)
        for number in range(3):
            bus._client.channel.sock.shutdown(socket.SHUT_RDWR)
            while messages.interrupted == number or bus.state is not BusState.CONNECTED:
                with contextlib.suppress(ConnectionLost):
                    await page(bus)
            await page(bus)
            assert mailbox.ready == 4
        # The kept values of the last connection have waited for credit.
        came = await take(messages, 8)
        assert [message.payload for message in came] == 2 * kept
        assert [message.interrupted for message in came] == [False] * 4 + [True] + [False] * 3
        assert messages.lost == 0
        await other.publish("kept.0", "live")
        assert (await messages.receive()).payload == "live"


async def test_left_meanwhile_is_left(connect: Connect, broker: BrokerProcess) -> None:
    async with connect() as bus:
        async with bus.subscribe("left"):
            await lose(broker, bus)
        await find_again(broker, bus)
        assert (await page(bus))["subscriptions"] == []


async def test_publishes_wait_for_the_broker_in_order(connect: Connect, broker: BrokerProcess) -> None:
    large = b"x" * 200_000
    async with connect() as bus, bus.subscribe("t") as messages:
        await lose(broker, bus)
        for number in range(100):
            await bus.publish("t", number)
        await bus.publish("t", large, headers={"h": 1})
        await bus.publish("t", "last")
        await find_again(broker, bus)
        came = await take(messages, 102)
        assert [message.payload for message in came] == [*range(100), large, "last"]
        assert came[100].headers == {"h": 1}
        assert [message.interrupted for message in came] == [True] + 101 * [False]
        assert {message.sender for message in came} == {bus.peer}
        assert bus.in_doubt == 0


async def test_receipt_and_request_of_the_time_between_come(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    async with connect() as bus, bus.subscribe("t"), runtime.serving(bus, "s", lambda _: "reply"):
        await lose(broker, bus)
        receipts: list[Receipt] = []
        replies: list[Any] = []

        async def publish() -> None:
            receipts.append(await bus.publish("t", receipt=True))

        async def ask() -> None:
            replies.append((await bus.request("s", timeout=None)).payload)

        async def start() -> None:
            await runtime.in_thread(broker.start)

        await runtime.gather(publish, ask, start, bus.flush)
        assert (receipts, replies) == ([Receipt(1, 1, 0, 0)], ["reply"])


async def test_buffer_is_bounded_in_bytes(connect: Connect, runtime: Runtime, broker: BrokerProcess) -> None:
    async with connect(buffer_bytes=10_000) as bus, bus.subscribe("t") as messages:
        await lose(broker, bus)
        published: list[int] = []

        async def publish() -> None:
            for number in range(50):
                await bus.publish("t", [number, b"x" * 970])
                published.append(number)

        async def start() -> None:
            while len(published) < 10:
                await runtime.turn()
            for _ in range(100):
                await runtime.turn()
            assert len(published) in (10, 11)
            await runtime.in_thread(broker.start)

        await runtime.gather(publish, start)
        assert [message.payload[0] for message in await take(messages, 50)] == list(range(50))


@pytest.mark.parametrize("transport", ["seqpacket", "stream"], indirect=True)
async def test_fds_in_the_buffer_are_bounded(connect: Connect, runtime: Runtime, broker: BrokerProcess) -> None:
    async with connect() as bus, bus.subscribe("t") as messages:
        await lose(broker, bus)
        before = len(os.listdir("/proc/self/fd"))
        published: list[int] = []

        async def publish() -> None:
            for number in range(100):
                await bus.publish("t", number, fds=[0])
                published.append(number)

        async def start() -> None:
            while len(published) < 64:
                await runtime.turn()
            for _ in range(100):
                await runtime.turn()
            # As many as may be on their way while there is a connection.
            assert len(published) == 64
            assert len(os.listdir("/proc/self/fd")) <= before + 64 + 8  # what an attempt has open
            await runtime.in_thread(broker.start)

        await runtime.gather(publish, start)
        for number in range(100):
            with await messages.receive() as message:
                assert (message.payload, len(message.fds)) == (number, 1)


async def test_publishing_without_a_connection_lets_others_run(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    async with connect(buffer_bytes=1 << 30) as bus:
        await lose(broker, bus)
        ran: list[bool] = []

        async def run() -> None:
            ran.append(True)

        async def publish() -> None:
            for _ in range(1_000_000):
                if ran:
                    return
                await bus.publish("t")

        await runtime.gather(publish, run)
        assert ran
        await find_again(broker, bus)


async def test_request_that_times_out_without_a_connection_says_so(connect: Connect, broker: BrokerProcess) -> None:
    async with connect() as bus:
        await lose(broker, bus)
        why = r"there is no connection to .*; wait for bus\.state_changed\(\)"
        with pytest.raises(RequestTimeout, match=rf"^no reply to the request on 't' within 0\.1 s: {why}$"):
            await bus.request("t", timeout=0.1)
        await find_again(broker, bus)


async def test_no_buffer_at_all(connect: Connect, runtime: Runtime, broker: BrokerProcess) -> None:
    async with connect(buffer_bytes=0) as bus, bus.subscribe("t") as messages:
        await lose(broker, bus)

        async def start() -> None:
            await runtime.in_thread(broker.start)

        await runtime.gather(lambda: bus.publish("t", 1), start)
        assert (await messages.receive()).payload == 1


@pytest.mark.parametrize("transport", ["seqpacket", "stream"], indirect=True)
async def test_fds_wait_too_and_may_be_closed_meanwhile(connect: Connect, broker: BrokerProcess) -> None:
    async with connect() as bus, bus.subscribe("t") as messages:
        await lose(broker, bus)
        for text in (b"one", b"two"):
            receive, send = os.pipe()
            os.write(send, text)
            await bus.publish("t", text, fds=[receive])
            os.close(send)
            os.close(receive)
        await find_again(broker, bus)
        for message in await take(messages, 2):
            with message, message.fds[0].open() as pipe:
                assert pipe.read() == message.payload


async def test_with_fail_what_would_wait_raises(connect: Connect, runtime: Runtime, broker: BrokerProcess) -> None:
    async with connect(reconnect="fail") as bus, bus.subscribe("t") as messages:
        await lose(broker, bus)
        for call in (
            lambda: bus.publish("t"),
            lambda: bus.publish("t", receipt=True),
            lambda: bus.request("t"),
            bus.flush,
            lambda: bus.serve("t", lambda _: None),
            bus.subscribe("u").__aenter__,
        ):
            with pytest.raises(ConnectionLost, match=r"no connection to .* at the moment"):
                await call()
        await find_again(broker, bus)
        await bus.publish("t", 1)
        message = await messages.receive()
        assert (message.payload, message.interrupted) == (1, True)


async def test_without_reconnecting_the_end_is_the_end(connect: Connect, broker: BrokerProcess) -> None:
    async with connect(reconnect=None) as bus, bus.subscribe("t") as messages:
        broker.stop()
        with pytest.raises(BrokerClosing):
            await messages.receive()
        assert bus.state is BusState.CLOSED
        assert await bus.state_changed() is BusState.CLOSED
        with pytest.raises(BrokerClosing):
            await bus.publish("t")


async def test_what_was_written_is_in_doubt_and_never_sent_again(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    # More than fits into a socket, and all kinds of frames: some were written, some were begun, some were not.
    count = 3000
    async with connect() as bus, bus.subscribe("t") as messages:
        for number in range(10):
            await bus.publish("t", [number, b""])
        await bus.flush()
        await take(messages, 10)
        lost: list[int] = []

        async def publish() -> None:
            for number in range(count):
                payload = [number, b"x" * (100_000 if number % 100 == 50 else 300)]
                await bus.publish("t", payload, headers={"h": 1} if number % 7 == 3 else None)

        async def ask_for_receipts() -> None:
            for number in range(count, count + 3):
                try:
                    await bus.publish("t", [number, b""], receipt=True)
                except ConnectionLost:
                    lost.append(number)

        async def restart() -> None:
            # As much as may be: some of it is in the socket, and where that takes less, some in the outbox.
            session = bus._client.session
            window = session.sender.publishes
            while window.sent_bytes < 100_000 or (
                window.sent_bytes < window.granted_bytes and not session.outbox.queued_bytes
            ):
                await runtime.turn()
            await runtime.in_thread(broker.kill)
            await find_again(broker, bus)

        came: list[int] = []

        async def take_all() -> None:
            while (message := await messages.receive()).payload != "end":
                came.append(message.payload[0])

        async def publish_all() -> None:
            await runtime.gather(publish, ask_for_receipts, restart)
            await bus.publish("t", "end")

        # What is written to it from here on is lost.
        os.kill(broker.pid, signal.SIGSTOP)
        await runtime.gather(publish_all, take_all)
        plain = [number for number in came if number < count]
        assert plain == sorted(plain)
        assert bus.in_doubt > 0
        assert len(plain) + bus.in_doubt == count
        assert sorted([number for number in came if number >= count] + lost) == [count, count + 1, count + 2]


async def test_what_has_long_arrived_is_not_in_doubt(connect: Connect, broker: BrokerProcess) -> None:
    async with connect() as bus, connect() as other:
        for number in range(100):
            await bus.publish("t", number)
        await bus.publish("t", receipt=True)
        # Told within a second, though nobody has asked and there is plenty of window.
        while bus._client.session.sender.publishes.taken_messages < 100:
            await bus.request("$SYS.status")
        await lose(broker, bus, other)
        assert (bus.in_doubt, other.in_doubt) == (0, 0)
        await find_again(broker, bus, other)


async def test_request_in_flight_is_lost(connect: Connect, runtime: Runtime, broker: BrokerProcess) -> None:
    async with connect() as bus, connect() as server:
        asked = runtime.event()

        async def hold(_: Message) -> None:
            asked.set()
            await runtime.event().wait()

        async def ask() -> None:
            with pytest.raises(ConnectionLost):
                await bus.request("held", timeout=None)

        async def kill() -> None:
            await asked.wait()
            await runtime.in_thread(broker.kill)

        async with runtime.serving(server, "held", hold):
            await runtime.gather(ask, kill)
            await find_again(broker, bus, server)


async def test_reply_of_an_earlier_connection_answers_nobody(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    async with connect() as bus:
        held = Held(runtime)

        async def ask_first() -> None:
            with pytest.raises(ConnectionLost):
                await bus.request("s", "first", timeout=None)

        async def ask_then() -> None:
            await held.asked.wait()
            await runtime.in_thread(broker.kill)
            await reaches(bus, BusState.WAITING)
            await find_again(broker, bus)
            held.go_on.set()
            for number in range(20):
                assert (await bus.request("s", number)).payload == number

        async with runtime.serving(bus, "s", held.answer):
            await runtime.gather(ask_first, ask_then)


async def test_states_come_in_order(connect: Connect, runtime: Runtime, broker: BrokerProcess) -> None:
    async with connect() as bus:
        seen = [bus.state]

        async def watch() -> None:
            while seen[-1] is not BusState.CONNECTED or len(seen) == 1:
                before = bus.state if runtime.name in EVENT_LOOPS else seen[-1]
                seen.append(await bus.state_changed())
                # Also where several attempts were over before anybody looked.
                assert seen[-1] is not before

        async def restart() -> None:
            await runtime.in_thread(broker.kill)
            while bus._client.standing.now.changes < 8:
                await runtime.turn()
            await runtime.in_thread(broker.start)

        await runtime.gather(watch, restart)
    assert (seen[0], seen[-1], bus.state) == ("connected", "connected", "closed")
    assert seen[1] in (BusState.CONNECTING, BusState.WAITING)
    assert set(seen[2:-1]) <= {BusState.CONNECTING, BusState.WAITING}


async def test_leaving_without_a_broker_says_what_is_lost(
    connect: Connect, broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sockbus.blocking.bus, sockbus.client.event_loop):
        monkeypatch.setattr(module, "LEAVE_SECONDS", 0.2)
    with pytest.raises(ConnectionLost, match="3 messages waited for a connection to"):
        async with connect() as bus:
            await lose(broker, bus)
            for number in range(3):
                await bus.publish("t", number)
    async with contextlib.AsyncExitStack() as stack:
        broker.start()
        bus = await stack.enter_async_context(connect())
        await lose(broker, bus)


async def test_drained_subscriptions_finish_what_has_come(connect: Connect) -> None:
    async with connect() as bus, connect() as other, bus.subscribe("t") as messages, bus.subscribe("t") as left:
        for number in range(300):
            await bus.publish("t", number)
        await bus.drain()
        assert (await other.publish("t", receipt=True)).matched == 0
        assert [message.payload async for message in messages] == list(range(300))
        with pytest.raises(ConnectionLost, match="was left"):
            await messages.receive()
        assert [message.payload for batch in [each async for each in left.batches()] for message in batch] == list(
            range(300)
        )
        # What is not a subscription goes on.
        await bus.publish("t", receipt=True)
        await bus.drain()


@pytest.mark.parametrize(
    "options", [{"reconnect": "later"}, {"reconnect": True}, {"buffer_bytes": -1}, {"buffer_bytes": 1.5}]
)
def test_options_that_are_none_are_refused(runtime: Runtime, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        runtime.connect("unix:/nowhere", **options)
