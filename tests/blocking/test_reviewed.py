"""Where calls of one bus meet: in a signal handler, at one message, in a batch without room, at a broker that goes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockbus import BusState, ConnectionLost, LimitExceeded, RequestTimeout
from sockbus.blocking import Bus, Subscription, connect
from sockbus.client.need import Expired
from tests.brokers import BrokerProcess, Program
from tests.contract.runtime import PATIENCE

NESTED = """
import signal, sys
from sockbus.blocking import connect

def flush(*_):
    try:
        bus.flush()
    except RuntimeError as error:
        print(error, flush=True)
    bus.publish(sys.argv[2], "waits for nothing")

signal.signal(signal.SIGUSR1, flush)
with connect(sys.argv[1]) as bus, bus.subscribe(sys.argv[2]) as messages:
    print("ready", flush=True)
    print(messages.receive().payload, flush=True)
"""


def state_of(pid: int) -> str:
    """R: it runs; S: it sleeps (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_signal_handler_cannot_wait_at_the_bus_for_which_its_thread_reads(address: str, topic: str) -> None:
    with Program([sys.executable, "-c", NESTED, address, topic]) as program:
        assert program.out.next() == "ready", program.err.rest().decode()
        while state_of(program.process.pid) != "S":
            continue  # until it waits
        program.signal(signal.SIGUSR1)
        assert "in the middle of a call of the same thread" in program.out.next()
        assert program.out.next() == "waits for nothing"
        assert program.code() == 0


@pytest.mark.parametrize("group", [None, "g"])
def test_what_is_put_back_when_another_taker_came_meanwhile_is_neither_lost_nor_counted_twice(
    address: str, topic: str, group: str | None
) -> None:
    with connect(address) as bus, bus.subscribe(topic, group=group, capacity=8) as messages, connect(address) as other:
        for number in range(6):
            other.publish(topic, number, receipt=True)
        while len(messages._taking.mailbox.queue) < 6:
            bus.flush()
        batch = messages._take(messages._taking.next_batch, PATIENCE)
        with pytest.raises(TimeoutError):
            take_in_thread(messages)
        messages._put_back(batch)
        came = [messages.receive(timeout=PATIENCE).payload for _ in range(6)]
        assert came == list(range(6))
        for number in range(40):
            other.publish(topic, number, receipt=True)
            assert messages.receive(timeout=PATIENCE).payload == number


def take_in_thread(messages: Subscription) -> None:
    """Another taker, which finds nothing."""
    caught: list[BaseException] = []

    def take() -> None:
        try:
            while True:
                messages.receive(timeout=0.0)
        except TimeoutError as error:
            caught.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(PATIENCE)
    raise caught[0]


@pytest.fixture
def full(address: str, topic: str) -> Iterator[Any]:
    """A connection whose window is spent."""
    with connect(address) as taker, taker.subscribe(topic, capacity=1):
        connecting = connect(address)
        bus = connecting.__enter__()
        try:
            while True:
                bus.publish(topic, b"x" * 10_000, timeout=0.05)
        except TimeoutError:
            yield connecting, bus


def test_batch_without_room_makes_other_calls_say_what_they_mean(full: tuple[Any, Bus], topic: str) -> None:
    connecting, bus = full
    with pytest.raises(KeyError) as caught, bus.batch():
        bus.publish(topic, "gathered")
        with pytest.raises(RequestTimeout):
            bus.request("$SYS.status", timeout=0.05)
        with pytest.raises(TimeoutError, match=r"there was no room .* and it was not sent"):
            bus.publish(topic, 1, headers={"a": 1}, timeout=0.05)
        with pytest.raises(TimeoutError, match="has not taken over everything"):
            bus.flush(timeout=0.05)
        with pytest.raises(LimitExceeded, match="has not taken over everything"):
            connecting.__exit__(None, None, None)
        raise KeyError("the program's own")
    assert "of what was published in the batch were not sent" in caught.value.__notes__[0]


def test_batch_is_entered_once(address: str) -> None:
    with connect(address) as bus:
        batch = bus.batch()
        with batch:
            pass
        with pytest.raises(RuntimeError, match="was entered before"):
            batch.__enter__()
        assert not bus._waits.batching


def test_publish_that_finds_the_broker_gone_raises(transport: str) -> None:
    with (
        BrokerProcess() as broker,
        pytest.raises(ConnectionLost),
        connect(broker.address(transport), reconnect=None) as bus,
    ):
        bus.publish("t", 0, receipt=True)
        broker.stop()
        bus._waits.yielded = 0.0  # as if half a second had passed
        bus.publish("t", 1)
        bus.publish("t", 2)
        pytest.fail("nothing was raised")


def test_serving_does_not_wait_longer_for_a_stopped_broker_than_it_was_told(transport: str, topic: str) -> None:
    with BrokerProcess() as broker, connect(broker.address(transport)) as bus:
        os.kill(broker.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError, match=rf"did not answer to serving '{topic}' within 0\.05 s"):
            bus.serve(topic, print, timeout=0.05)
        os.kill(broker.pid, signal.SIGCONT)


def test_time_that_is_no_number_is_over(address: str, topic: str) -> None:
    with connect(address) as bus, bus.subscribe(topic) as messages, pytest.raises(TimeoutError):
        messages.receive(timeout=float("nan"))


def test_change_that_comes_as_the_time_is_over_is_not_missed(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with BrokerProcess() as broker, connect(broker.address(transport)) as bus:

        def expire(*_: object) -> None:
            broker.kill()
            raise Expired(1.0)

        with monkeypatch.context() as patch:
            patch.setattr(type(bus._waits), "drive", expire)
            with pytest.raises(TimeoutError, match=r"^the bus was connected for 1 s$"):
                bus.state_changed(timeout=1.0)
        assert bus.state_changed(timeout=PATIENCE) is BusState.WAITING


def test_publish_that_finds_no_room_without_a_connection_says_so(transport: str) -> None:
    with BrokerProcess() as broker, connect(broker.address(transport), buffer_bytes=0) as bus:
        broker.kill()
        while bus.state is BusState.CONNECTED:
            bus.state_changed(timeout=PATIENCE)
        why = r"there is no connection to .*; wait for bus\.state_changed\(\)"
        with pytest.raises(TimeoutError, match=rf"^there was no room for the message on 't' .* not sent: {why}$"):
            bus.publish("t", timeout=0.05)


def test_no_call_waits_longer_than_it_was_told_for_a_name_that_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    look_up = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        if not options.get("flags"):
            assert answered.wait(PATIENCE)
        return look_up(*arguments, **options)

    with BrokerProcess() as broker:
        port = broker.address("tcp").rpartition(":")[2]
        with connect(f"tcp:localhost:{port}") as bus:
            monkeypatch.setattr(socket, "getaddrinfo", slow)
            broker.kill()
            while bus.state is not BusState.CONNECTING:
                bus.state_changed(timeout=PATIENCE)
            bus.publish("t", "waits", timeout=0.01)
            with pytest.raises(RequestTimeout):
                bus.request("t", timeout=0.01)
            assert not answered.is_set()
            broker.start()
            answered.set()
            bus.publish("t", receipt=True, timeout=PATIENCE)


@pytest.mark.parametrize("batch", [False, True])
def test_with_fail_the_publish_that_finds_the_broker_gone_raises(batch: bool) -> None:
    with BrokerProcess() as broker, connect(broker.unix, reconnect="fail") as bus:
        bus.flush()
        broker.kill()
        # Nobody has read that it is gone: the first write finds out.
        with pytest.raises(ConnectionLost, match="is it still running"):
            if batch:
                with bus.batch():
                    bus.publish("t", 1)
            else:
                bus.publish("t", 1)
        assert not bus._waits.backlog
        with pytest.raises(ConnectionLost, match="no connection to"):
            bus.publish("t", 2)
        with bus.batch():
            pass
        broker.start()
        while bus.state is not BusState.CONNECTED:
            bus.state_changed()
        bus.publish("t", 3, receipt=True)
        # What a batch had gathered was not queued with any connection.
        assert bus.in_doubt == (0 if batch else 1)


def test_what_a_lost_connection_leaves_behind_shows_to_who_only_looks() -> None:
    with BrokerProcess() as broker, connect(broker.unix) as bus, bus.subscribe("t") as messages:
        os.kill(broker.pid, signal.SIGSTOP)
        bus.publish("other")
        broker.kill()
        assert messages.interrupted == 1
        assert bus.in_doubt == 1
        broker.start()
        while bus.state is not BusState.CONNECTED:
            bus.state_changed()
        os.kill(broker.pid, signal.SIGSTOP)
        bus.publish("other")
        broker.kill()
        assert bus.in_doubt == 2
        assert messages.interrupted == 2
