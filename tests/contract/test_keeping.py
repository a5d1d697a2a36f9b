"""A bus over several connections: what falls between the end of one and the beginning of the next."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

import sockbus.blocking.attempts
import sockbus.client.event_loop
from sockbus import BusState, ConnectionLost, LimitExceeded, Will
from sockbus.payload import encode_payload
from sockbus.protocol.frame import Kind, control, encode
from sockbus.protocol.handshake import peer_body
from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime
from tests.contract.scripted import SECONDS, Connection, Scripted, scripted
from tests.contract.test_reconnect import Connect, Held, broker, connect, find_again, lose, reaches, take

__all__ = ["broker", "connect"]


@pytest.fixture
def script() -> Iterator[Scripted]:
    with scripted() as script:
        yield script


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


async def test_with_fail_a_handler_that_ends_while_away_is_no_fault(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    async with connect(reconnect="fail") as bus, connect() as other:
        held = Held(runtime)

        async def ask_first() -> None:
            with pytest.raises(ConnectionLost):
                await other.request("s", "first", timeout=None)

        async def ask_then() -> None:
            await held.asked.wait()
            await runtime.in_thread(broker.kill)
            await reaches(bus, BusState.WAITING)
            held.go_on.set()
            for _ in range(100):
                await runtime.turn()
            await find_again(broker, bus, other)
            assert (await other.request("s", "then")).payload == "then"

        async with runtime.serving(bus, "s", held.answer):
            await runtime.gather(ask_first, ask_then)


async def test_call_that_comes_while_all_is_put_in_force_is_answered(runtime: Runtime, script: Scripted) -> None:
    replied: list[int] = []

    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        first.send(first.ok(Kind.SERVE))
        first.send(first.ok(Kind.SUBSCRIBE))
        first.close()
        then = script.accept()
        then.send(then.welcome())
        serving = then.wait_for(Kind.SERVE)
        subscribed = then.ok(Kind.SUBSCRIBE)
        then.send_and_see_read(control(Kind.OK, correlation=serving), call(then, 2, serving))
        then.send(subscribed)
        replied.append(then.wait_for(Kind.REPLY))
        script.close()

    async def use() -> None:
        async with (
            runtime.connect(script.address) as bus,
            runtime.serving(bus, "s", lambda request: request.payload),
            bus.subscribe("t"),
        ):
            while not replied:
                await bus.state_changed()
            await reaches(bus, BusState.WAITING)

    await runtime.gather(lambda: runtime.in_thread(play), use)
    assert replied == [2]


def call(connection: Connection, number: int, serving: int) -> bytes:
    """A request for a server of this client's, from another peer."""
    return b"".join(
        (
            control(Kind.PEER, peer_body(connection.peer), correlation=99),
            control(Kind.CALL, [serving], correlation=number),
            encode(Kind.REQUEST, topic=b"s", payload=encode_payload("?"), sender=99, correlation=number),
        )
    )


async def test_connection_that_ends_as_it_begins_is_none(runtime: Runtime, script: Scripted) -> None:
    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        first.close()
        then = script.accept()
        then.send(then.welcome(), control(Kind.GOODBYE, {"text": "stopping"}))
        last = script.accept()
        last.send(last.welcome())
        for _ in range(3):
            last.wait_for(Kind.PUBLISH)
        # The test's own, and that of leaving.
        last.send(last.ok(Kind.FLUSH))
        last.send(last.ok(Kind.FLUSH))
        last.wait_for(Kind.GOODBYE)

    async def use() -> None:
        async with runtime.connect(script.address) as bus:
            await reaches(bus, BusState.WAITING)
            for number in range(3):
                await bus.publish("t", number, headers={"h": 1} if number == 1 else None)
            await bus.flush()
            assert bus.in_doubt == 0

    await runtime.gather(lambda: runtime.in_thread(play), use)


async def test_draining_leaves_alone_what_is_being_entered(runtime: Runtime, script: Scripted) -> None:
    subscribing: list[int] = []
    drained = threading.Event()

    def play() -> None:
        connection = script.accept()
        connection.send(connection.welcome())
        subscribing.append(connection.wait_for(Kind.SUBSCRIBE))
        connection.send(connection.ok(Kind.FLUSH))
        assert drained.wait(SECONDS)
        connection.send(control(Kind.OK, correlation=subscribing[0]))
        connection.send(connection.ok(Kind.UNSUBSCRIBE))
        connection.send(connection.ok(Kind.FLUSH))
        connection.wait_for(Kind.GOODBYE)

    async def use() -> None:
        async with runtime.connect(script.address) as bus:

            async def subscribe() -> None:
                async with bus.subscribe("t"):
                    pass

            async def drain() -> None:
                while not subscribing:
                    await runtime.turn()
                await bus.drain()
                drained.set()

            await runtime.gather(subscribe, drain)

    await runtime.gather(lambda: runtime.in_thread(play), use)


async def test_with_fail_a_program_that_only_publishes_is_connected_again(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    async with connect(reconnect="fail") as bus:
        await lose(broker, bus)
        await runtime.in_thread(broker.start)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                await bus.publish("t", receipt=True)
                break
            except ConnectionLost:
                await runtime.turn()
        assert bus.state is BusState.CONNECTED


async def test_what_the_next_broker_allows_no_more_ends(runtime: Runtime, script: Scripted) -> None:
    answered: list[Kind] = []
    entered = threading.Event()

    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        for kind in (Kind.SERVE, Kind.SERVE, Kind.SUBSCRIBE, Kind.SUBSCRIBE):
            first.send(first.ok(kind))
            answered.append(kind)
        assert entered.wait(SECONDS)
        first.close()
        then = script.accept()
        then.send(then.welcome(servers=1, subscriptions=1))
        then.send(then.ok(Kind.SERVE))
        then.send(then.ok(Kind.SUBSCRIBE))
        # Whoever leaves now has nothing to wait for.
        script.close()

    async def use() -> None:
        async with runtime.connect(script.address) as bus:

            async def serve() -> None:
                with pytest.raises(LimitExceeded, match="servers"):
                    await bus.serve("refused", lambda _: None)

            async def take_two() -> None:
                while len(answered) < 2:
                    await runtime.turn()
                async with bus.subscribe("kept"), bus.subscribe("refused") as refused:
                    entered.set()
                    with pytest.raises(LimitExceeded, match="subscriptions"):
                        await refused.receive()

            async with runtime.serving(bus, "kept", lambda _: None):
                await runtime.gather(serve, take_two)
            await reaches(bus, BusState.WAITING)

    await runtime.gather(lambda: runtime.in_thread(play), use)


@pytest.mark.parametrize("reconnect", ["wait", "fail", None])
@pytest.mark.parametrize("published", [False, True])
async def test_connection_lost_while_leaving_matters_where_something_may_be_lost(
    runtime: Runtime,
    script: Scripted,
    reconnect: str | None,
    published: bool,  # a parameter of the test
) -> None:
    def play() -> None:
        connection = script.accept()
        connection.send(connection.welcome())
        connection.wait_for(Kind.FLUSH)
        script.close()

    async def use() -> None:
        lost = pytest.raises(ConnectionLost) if published else contextlib.nullcontext()
        with lost:
            async with runtime.connect(script.address, reconnect=reconnect) as bus:
                if published:
                    await bus.publish("t")

    await runtime.gather(lambda: runtime.in_thread(play), use)


@pytest.mark.parametrize("reconnect", ["wait", "fail", None])
async def test_first_connection_that_ends_as_it_begins_shows_in_the_state(
    runtime: Runtime, script: Scripted, reconnect: str | None
) -> None:
    def play() -> None:
        connection = script.accept()
        script.stop_listening()
        connection.send(connection.welcome(), control(Kind.GOODBYE, {"text": "stopping"}))

    async def use() -> None:
        async with runtime.connect(script.address, reconnect=reconnect) as bus:
            assert bus.state is not BusState.CONNECTED
            if reconnect is None:
                assert await bus.state_changed() is BusState.CLOSED

    await runtime.gather(lambda: runtime.in_thread(play), use)


async def test_subscription_that_was_left_keeps_nothing_of_an_attempt_that_fails(
    runtime: Runtime, script: Scripted
) -> None:
    subscribed, left = threading.Event(), threading.Event()

    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        first.send(first.ok(Kind.SUBSCRIBE))
        first.send(first.ok(Kind.SUBSCRIBE))
        first.close()
        then = script.accept()
        script.stop_listening()
        then.send(then.welcome())
        number = then.wait_for(Kind.SUBSCRIBE)
        then.send(control(Kind.OK, correlation=number))
        subscribed.set()
        assert left.wait(SECONDS)
        frame = encode(Kind.PUBLISH, topic=b"t", payload=encode_payload("x"), sender=99)
        deliver = control(Kind.DELIVER, [1, 0], correlation=number)
        then.send(control(Kind.PEER, peer_body(then.peer), correlation=99), deliver, frame)
        then.close()

    async def use() -> None:
        async with runtime.connect(script.address) as bus, contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(bus.subscribe("t"))
            mailbox = next(iter(bus._client.boxes))
            async with bus.subscribe("other") as other, runtime.during(other.receive):
                while not subscribed.is_set():
                    await runtime.turn()
                await stack.aclose()
                left.set()
                await reaches(bus, BusState.WAITING)
                assert mailbox.ready == 0

    await runtime.gather(lambda: runtime.in_thread(play), use)


async def test_leaving_in_the_middle_of_an_attempt_says_goodbye_there(runtime: Runtime, script: Scripted) -> None:
    answered: list[Kind] = []

    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        first.send(first.ok(Kind.WILL))
        first.send(first.ok(Kind.SUBSCRIBE))
        first.close()
        then = script.accept()
        then.send(then.welcome())
        then.send(then.ok(Kind.WILL))
        answered.append(Kind.WILL)
        # Else its will would be published.
        then.wait_for(Kind.GOODBYE)

    async def use() -> None:
        async with (
            runtime.connect(script.address, will=Will("t", "gone")) as bus,
            bus.subscribe("t") as messages,
            runtime.during(messages.receive),
        ):
            while not answered:
                await runtime.turn()

    await runtime.gather(lambda: runtime.in_thread(play), use)


async def test_full_table_of_descriptors_puts_off_the_next_connection(
    connect: Connect, runtime: Runtime, broker: BrokerProcess
) -> None:
    async with (
        connect() as bus,
        bus.subscribe("t") as quiet,
        bus.subscribe("other") as messages,
        runtime.during(quiet.receive),
    ):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # No number below this is free.
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            bus._client.channel.sock.shutdown(socket.SHUT_RDWR)
            changes = bus._client.standing.now.changes
            # Lost, tried in vain, and once more.
            while bus._client.standing.now.changes < changes + 5:
                await runtime.turn()
            await bus.publish("other", "waits")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await reaches(bus, BusState.CONNECTED)
        await bus.publish("other", "goes on", receipt=True)
        assert [message.payload for message in await take(messages, 2)] == ["waits", "goes on"]
        assert (bus.in_doubt, messages.interrupted) == (0, 1)


async def test_broker_that_accepts_and_says_nothing_is_given_up(
    runtime: Runtime, script: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        first.close()
        # Open to the end, and silent; the second one in the middle of what is put in force.
        script.accept()
        half = script.accept()
        half.send(half.welcome())
        last = script.accept()
        last.send(last.welcome())
        last.send(last.ok(Kind.WILL))
        # The test's own, and that of leaving.
        last.send(last.ok(Kind.FLUSH))
        last.send(last.ok(Kind.FLUSH))
        last.wait_for(Kind.GOODBYE)

    async def use() -> None:
        async with runtime.connect(script.address) as bus:
            bus._client.connecting.will = Will("t", "gone")
            for module in (sockbus.blocking.attempts, sockbus.client.event_loop):
                monkeypatch.setattr(module, "CONNECT_SECONDS", 0.3)
            await reaches(bus, BusState.WAITING)
            await reaches(bus, BusState.CONNECTED)
            await bus.flush()

    await runtime.gather(lambda: runtime.in_thread(play), use)


async def test_subscription_that_was_never_in_force_was_not_interrupted(runtime: Runtime, script: Scripted) -> None:
    went_on = threading.Event()

    def play() -> None:
        # Lost while it is entered, at the first connection and in the middle of an attempt.
        for _ in range(2):
            connection = script.accept()
            connection.send(connection.welcome())
            connection.wait_for(Kind.SUBSCRIBE)
            connection.close()
        for number in range(2):
            connection = script.accept()
            connection.send(connection.welcome())
            subscribed = connection.wait_for(Kind.SUBSCRIBE)
            connection.send(
                control(Kind.OK, correlation=subscribed),
                control(Kind.PEER, peer_body(connection.peer), correlation=99),
                control(Kind.DELIVER, [1, 0], correlation=subscribed),
                encode(Kind.PUBLISH, topic=b"t", payload=encode_payload(number), sender=99),
            )
            if number == 0:
                assert went_on.wait(SECONDS)
            else:
                connection.send(connection.ok(Kind.FLUSH))
            connection.close()

    async def use() -> None:
        async with runtime.connect(script.address) as bus, bus.subscribe("t") as messages:
            entered = messages.interrupted
            first = await messages.receive()
            assert (first.payload, first.interrupted, entered) == (0, False, 0)
            went_on.set()
            then = await messages.receive()
            assert (then.payload, then.interrupted, messages.interrupted) == (1, True, 1)

    await runtime.gather(lambda: runtime.in_thread(play), use)
