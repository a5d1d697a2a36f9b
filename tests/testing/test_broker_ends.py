"""A ``Broker`` leaves nothing behind, however it ends and whatever keeps it from beginning."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from sockbus import ConnectError, ConnectionLost, SockbusError
from sockbus.broker import closing, server
from sockbus.fd import closing_settled
from sockbus.protocol.frame import Kind
from sockbus.testing import Broker
from sockbus.transport import listener
from sockbus.trio import connect
from tests.broker.raw import Raw
from tests.brokers import PATIENCE, environment
from tests.fd_guard import open_fds
from tests.testing.probes import SCHEMES, brokers_threads, is_absent, round_trip
from tests.transport.pairs import room_for

# As it is meant to


def test_nothing_is_left_when_it_was_left(place: Path) -> None:
    assert closing_settled(PATIENCE)
    fds = open_fds()
    with Broker() as broker:
        assert [thread.daemon for thread in brokers_threads()] == [True]
        assert len(list(place.iterdir())) == 1
        trio.run(round_trip, broker.address)
    # At once: nobody waits for it.
    assert open_fds() == fds
    assert list(place.iterdir()) == []
    assert brokers_threads() == []


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_nobody_is_there_when_it_was_left(scheme: str) -> None:
    with Broker() as broker:
        pass
    assert await is_absent(broker.addresses[scheme])


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt("mine"), trio.TooSlowError("mine")])
def test_error_of_the_block_comes_out_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error), match="mine") as caught, Broker():
        raise error
    assert caught.value is error
    assert error.__context__ is None


async def test_cancelled_block_is_left() -> None:
    with trio.CancelScope() as scope, Broker():
        scope.cancel()
        await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_stop_is_told_to_those_who_are_connected(scheme: str) -> None:
    with trio.fail_after(PATIENCE), Broker() as broker:
        async with connect(broker.addresses[scheme], reconnect=None) as bus, bus.subscribe("a.b") as messages:
            await bus.publish("a.b", "before")
            await bus.flush()
            broker.stop()
            assert await is_absent(broker.addresses[scheme])
            assert (await messages.receive()).payload == "before"
            with pytest.raises(ConnectionLost, match="the broker is stopping"):
                await messages.receive()
            with pytest.raises(ConnectionLost):
                await bus.publish("a.b")


def test_stop_may_come_often_and_from_anywhere() -> None:
    broker = Broker()
    broker.stop()
    with broker:
        threads = [threading.Thread(target=broker.stop) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        broker.stop()
    broker.stop()
    assert trio.run(is_absent, broker.address)


def test_stop_does_not_wait_for_ever_for_a_client_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(closing, "GRACE", 0.05)
    with Broker() as broker, Raw(broker.addresses["stream"]) as deaf, Raw(broker.addresses["tcp"]) as publisher:
        deaf.subscribe("deaf", credit=(1000, 1 << 30, 64))
        for _ in range(15):
            publisher.send(publisher.frame(Kind.PUBLISH, "deaf", bytes(60_000)))
        publisher.settle()
        broker.stop()
        found = re.search(r"(\d+) messages, and (\d+) bytes on their way to peers, could not be", caplog.text)
        assert found is not None
        assert 0 < int(found[1]) <= 15
        assert 0 < int(found[2]) <= 15 * 60_100
        assert brokers_threads() == []


def test_broker_is_entered_once() -> None:
    with Broker() as broker:
        with pytest.raises(RuntimeError, match="once"):
            broker.__enter__()
        assert trio.run(round_trip, broker.address).payload == "payload"
    with pytest.raises(RuntimeError, match="once"), broker:
        pass


def test_address_before_it_is_entered_is_an_error() -> None:
    broker = Broker()
    assert broker.addresses == {}
    assert repr(broker) == "<Broker not entered>"
    with pytest.raises(RuntimeError, match="entered"):
        assert broker.address


def test_files_that_others_put_beside_the_sockets_go_too(place: Path) -> None:
    with Broker() as broker:
        Path(broker.address.removeprefix("unix:"), "file").touch()
    assert list(place.iterdir()) == []


def test_directory_that_somebody_removed_is_no_error() -> None:
    with Broker() as broker:
        shutil.rmtree(broker.address.removeprefix("unix:"))
        assert trio.run(is_absent, broker.address)
    assert brokers_threads() == []


# When something is wrong


def test_directory_that_cannot_be_made_is_an_error_of_entering(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "absent"))
    with pytest.raises(FileNotFoundError), Broker():
        raise AssertionError("the block was entered")


def test_port_that_cannot_be_had_is_an_error_of_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_port(_: object) -> socket.socket:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    monkeypatch.setattr(listener, "_listen_tcp", no_port)
    assert closing_settled(PATIENCE)
    fds = open_fds()
    with pytest.raises(ConnectError, match=r"cannot listen on tcp:127\.0\.0\.1:0"), Broker():
        raise AssertionError("the block was entered")
    # The UNIX sockets were open by then.
    assert open_fds() == fds


def test_thread_that_cannot_be_started_is_an_error_of_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    broker = Broker()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            broker.__enter__()
    broker.stop()
    assert brokers_threads() == []


# With less than five Trio does not start, and leaves to the garbage collector what it has opened by then.
@pytest.mark.parametrize("room", range(5, 12))
def test_without_room_for_files_it_starts_or_says_so_and_leaves_nothing(room: int) -> None:
    assert closing_settled(PATIENCE)
    fds = open_fds()
    started = False
    with room_for(room):
        try:
            with Broker():
                started = True
        except (OSError, SockbusError) as error:
            assert not started
            assert "Too many open files" in str(error)  # noqa: PT017  # or none comes
    assert open_fds() == fds


def test_interrupted_entering_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    broker = Broker()
    monkeypatch.setattr(broker, "_begun", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        broker.__enter__()
    assert brokers_threads() == []


async def fault(*_: object) -> None:
    raise LookupError("a fault of the broker")


def is_the_fault(group: BaseExceptionGroup[Any]) -> bool:
    return group.subgroup(lambda error: "a fault of the broker" in str(error)) is not None


def test_fault_of_the_broker_comes_out_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "sweep", fault)
    with pytest.raises(ExceptionGroup, check=is_the_fault), Broker():
        pass


def test_fault_of_the_broker_does_not_hide_what_the_block_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "sweep", fault)
    with pytest.raises(ExceptionGroup, check=is_the_fault) as caught, Broker() as broker:
        brokers_threads()[0].join(PATIENCE)
        trio.run(round_trip, broker.address)
    assert isinstance(caught.value.__context__, ConnectError)


def test_fault_of_the_broker_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "sweep", fault)
    with Broker() as broker:
        with pytest.raises(ExceptionGroup, check=is_the_fault):
            broker.stop()
        broker.stop()


def run_program(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program in Python to its end, with the brokers' directories where this test looks for them."""
    return subprocess.run(
        [sys.executable, "-c", text],
        env=environment(TMPDIR=tempfile.gettempdir()),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_broker_that_nobody_leaves_does_not_keep_the_program_from_ending(place: Path) -> None:
    done = run_program(
        "from sockbus.testing import Broker\nbroker = Broker()\nbroker.__enter__()\nprint(broker.address)"
    )
    assert (done.returncode, done.stderr) == (0, "")
    left = Path(done.stdout.strip().removeprefix("unix:"))
    assert list(place.iterdir()) == [left]
    shutil.rmtree(left)


FORKS = """
import os, sys, warnings
from sockbus.testing import Broker

warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside a thread
with Broker() as broker:
    if not (pid := os.fork()):
        sys.exit(0)
    os.waitpid(pid, 0)
    assert os.listdir(broker.address.removeprefix("unix:"))
    import trio, sockbus.trio
    async def main():
        async with sockbus.trio.connect(broker.address) as bus:
            print(bus.transport)
    trio.run(main)
"""


def test_child_that_ends_takes_nothing_from_its_parent() -> None:
    done = run_program(FORKS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "seqpacket\n", "")
