"""What is lost with a connection or with a bus is counted, and somebody is told how many."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sockbus.blocking.bus
import sockbus.client.event_loop
from sockbus import BrokerClosing, BusState, ConnectionLost, ProtocolError
from sockbus.errors import VersionMismatch
from sockbus.protocol.frame import Kind, control
from tests.contract.runtime import Runtime
from tests.contract.scripted import SECONDS, Connection, Scripted, scripted
from tests.contract.test_reconnect import reaches


@pytest.fixture
def script() -> Iterator[Scripted]:
    with scripted() as script:
        yield script


async def loses(bus: Any) -> None:
    while bus.state is BusState.CONNECTED:
        await bus.state_changed()


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """What was logged with these words in it."""
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def play_no_broker(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.close()


def play_refusal(connection: Connection) -> None:
    connection.send(control(Kind.ERROR, {"code": "limit", "text": "this broker has 1 connections"}))
    connection.close()


@pytest.mark.parametrize(
    ("play_other", "text"), [(play_no_broker, "does not begin a frame"), (play_refusal, "has 1 connections")]
)
async def test_what_an_attempt_meets_that_may_be_over_in_a_moment_does_not_end_a_bus(
    runtime: Runtime,
    script: Scripted,
    caplog: pytest.LogCaptureFixture,
    play_other: Callable[[Connection], None],
    text: str,
) -> None:
    published = threading.Event()
    received: list[int] = []

    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        first.close()
        for _ in range(2):
            play_other(script.accept())
        last = script.accept()
        assert published.wait(SECONDS)
        last.send(last.welcome())
        # The test's own, and that of leaving.
        last.send(last.ok(Kind.FLUSH))
        received.append(last.seen[Kind.PUBLISH])
        last.send(last.ok(Kind.FLUSH))

    async def use() -> None:
        async with runtime.connect(script.address) as bus:
            await loses(bus)
            for number in range(3):
                await bus.publish("t", number)
            published.set()
            await bus.flush()
            assert bus.in_doubt == 0

    await runtime.gather(lambda: runtime.in_thread(play), use)
    assert received == [3]
    (line,) = said(caplog, "is made for now")
    assert text in line


async def test_what_waits_when_a_bus_ends_for_good_is_counted_and_told(
    runtime: Runtime, script: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    published = threading.Event()

    def play() -> None:
        first = script.accept()
        first.send(first.welcome())
        first.close()
        then = script.accept()
        assert published.wait(SECONDS)
        then.send(control(Kind.ERROR, {"code": "version", "text": "version 1 is not spoken here"}))
        then.close()

    async def use() -> None:
        with pytest.raises(VersionMismatch, match=r"perhaps 3 messages: version 1 is not spoken here"):
            async with runtime.connect(script.address) as bus:
                await loses(bus)
                for number in range(3):
                    await bus.publish("t", number)
                published.set()
                await reaches(bus, BusState.CLOSED)
                assert bus.in_doubt == 3
        assert bus.in_doubt == 3

    await runtime.gather(lambda: runtime.in_thread(play), use)
    (line,) = said(caplog, "has ended")
    assert line == (
        f"the bus at {script.address} has ended, and with it perhaps 3 messages: version 1 is not spoken here"
    )


ERROR = control(Kind.ERROR, {"code": "protocol", "text": "sent away"})
GOODBYE = control(Kind.GOODBYE, {"text": "stopping"})


@pytest.mark.parametrize(
    ("reconnect", "end", "kind"),
    [
        ("wait", b"", None),
        ("fail", b"", None),
        (None, b"", ConnectionLost),
        (None, GOODBYE, BrokerClosing),
        ("wait", ERROR, ProtocolError),
        ("fail", ERROR, ProtocolError),
    ],
)
@pytest.mark.parametrize("noticed", ["before", "while leaving"])
async def test_what_was_written_is_counted_however_the_connection_ends(
    runtime: Runtime,
    script: Scripted,
    caplog: pytest.LogCaptureFixture,
    reconnect: str | None,
    end: bytes,
    kind: type[Exception] | None,
    noticed: str,
) -> None:
    written = threading.Event()

    def play() -> None:
        connection = script.accept()
        connection.send(connection.welcome())
        assert written.wait(SECONDS)
        if noticed == "while leaving":
            connection.wait_for(Kind.FLUSH)
        script.stop_listening()
        connection.send(end)
        connection.close()

    async def use() -> Any:
        async with runtime.connect(script.address, reconnect=reconnect) as bus:
            buses.append(bus)
            for number in range(10):
                await bus.publish("t", number)
            while bus._client.session.outbox.queued_bytes:
                await runtime.turn()
            written.set()
            if noticed == "before":
                await reaches(bus, BusState.WAITING if kind is None else BusState.CLOSED)
                assert bus.in_doubt == 10

    async def leave() -> None:
        if kind is None and noticed == "before":
            # It goes on, and may look.
            await use()
        else:
            with pytest.raises(kind or ConnectionLost, match="perhaps 10 messages"):
                await use()

    buses: list[Any] = []
    await runtime.gather(lambda: runtime.in_thread(play), leave)
    assert buses[0].in_doubt == 10
    (line,) = said(caplog, "perhaps 10 messages")
    assert ("has ended" in line) == (kind is not None)


async def test_who_was_told_of_the_end_is_not_told_again(runtime: Runtime, script: Scripted) -> None:
    published = threading.Event()

    def play() -> None:
        connection = script.accept()
        connection.send(connection.welcome())
        assert published.wait(SECONDS)
        connection.close()

    async def use() -> None:
        async with runtime.connect(script.address, reconnect=None) as bus:
            await bus.publish("t")
            published.set()
            with pytest.raises(ConnectionLost, match="perhaps 1 message:"):
                while True:
                    await bus.flush()

    await runtime.gather(lambda: runtime.in_thread(play), use)


@pytest.mark.parametrize("back", [True, False])
async def test_connection_lost_while_leaving_keeps_what_was_not_written_for_the_next_one(
    runtime: Runtime, script: Scripted, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    count = 6
    if not back:
        for module in (sockbus.blocking.bus, sockbus.client.event_loop):
            monkeypatch.setattr(module, "LEAVE_SECONDS", 1.0)
    leaving = threading.Event()
    received: list[int] = []
    buses: list[Any] = []

    def play() -> None:
        connection = script.accept()
        connection.send(connection.welcome())
        assert leaving.wait(SECONDS)
        if not back:
            script.stop_listening()
        connection.close()
        if back:
            then = script.accept()
            then.send(then.welcome())
            then.send(then.ok(Kind.FLUSH))
            received.append(then.seen[Kind.PUBLISH])
            then.wait_for(Kind.GOODBYE)

    async def watch() -> None:
        while not (buses and buses[0]._client._is_flushing):
            await runtime.turn()
        leaving.set()

    async def use() -> None:
        text = "was lost while the bus was left" if back else r"\d messages waited for a connection"
        with pytest.raises(ConnectionLost, match=rf"{text}.*perhaps \d"):
            async with runtime.connect(script.address) as bus:
                for number in range(count):
                    # More than a socket takes.
                    await bus.publish("t", [number, b"x" * 100_000])
                buses.append(bus)

    await runtime.gather(lambda: runtime.in_thread(play), watch, use)
    if back:
        assert 0 < buses[0].in_doubt < count
        assert received == [count - buses[0].in_doubt]
    else:
        assert buses[0].in_doubt == count


async def test_with_fail_nothing_waits_for_another_connection(runtime: Runtime, script: Scripted) -> None:
    count = 20
    buses: list[Any] = []
    refused: list[int] = []
    full = threading.Event()

    def play() -> None:
        connection = script.accept()
        connection.send(connection.welcome())
        # More is on its way than a socket takes.
        assert full.wait(SECONDS)
        script.stop_listening()
        connection.close()

    async def watch() -> None:
        while not (buses and buses[0]._client.session.sender.publishes.sent_bytes > 500_000):
            await runtime.turn()
        full.set()

    async def ask(number: int) -> None:
        try:
            await buses[0].publish("t", [number, b"x" * 20_000], receipt=True)
        except ConnectionLost:
            refused.append(number)

    async def use() -> None:
        async with runtime.connect(script.address, reconnect="fail") as bus:
            buses.append(bus)
            await runtime.gather(*[functools.partial(ask, number) for number in range(count)], tell)
            assert sorted(refused) == list(range(count))
            # Without an event loop the call that was at it raises, and has counted its message, too.
            assert bus.in_doubt - told[0] in ((0, 1) if runtime.name == "blocking" else (0,))
            with pytest.raises(ConnectionLost, match="no connection to"):
                await bus.publish("t")
            assert not bus._client.backlog

    told: list[int] = []

    async def tell() -> None:
        sent = 0
        with contextlib.suppress(ConnectionLost):
            while True:
                await buses[0].publish("plain", b"x" * 20_000)
                sent += 1
                await runtime.turn()
        told.append(sent)

    await runtime.gather(lambda: runtime.in_thread(play), watch, use)
