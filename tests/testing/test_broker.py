"""A ``Broker`` is a real one, wherever it is entered, and touches nothing that is the program's."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import trio

import sockbus.asyncio
from sockbus import MessageTooLarge, SockbusError
from sockbus.testing import Broker
from sockbus.transport import listener
from sockbus.trio import connect
from tests.brokers import PATIENCE
from tests.testing.probes import SCHEMES, round_trip

# What it is


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_every_address_accepts_once_it_is_entered(scheme: str) -> None:
    with Broker() as broker:
        assert broker.addresses[scheme].startswith(f"{scheme}:")
        message = await round_trip(broker.addresses[scheme])
    assert message.payload == "payload"
    assert message.sender.transport == ("seqpacket" if scheme == "unix" else scheme)
    assert message.sender.pid == (None if scheme == "tcp" else os.getpid())


def test_address_is_the_unix_one() -> None:
    with Broker() as broker:
        assert broker.address == broker.addresses["unix"]
        assert list(broker.addresses) == SCHEMES
        assert repr(broker) == f"<Broker {broker.address}>"


def test_without_tcp_it_opens_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_listen_tcp", None)
    with Broker(tcp=False) as broker:
        assert list(broker.addresses) == SCHEMES[:3]


def test_open_file_arrives_although_both_ends_are_in_one_process() -> None:
    async def pass_file() -> str:
        with trio.fail_after(PATIENCE):
            async with connect(broker.address) as bus, bus.subscribe("a.b") as messages:
                with tempfile.TemporaryFile() as file:
                    file.write(b"content")
                    file.flush()
                    await bus.publish("a.b", fds=[file])
                with (await messages.receive()).fds[0].open() as received:
                    received.seek(0)
                    return str(received.read().decode())

    with Broker() as broker:
        assert trio.run(pass_file) == "content"


async def test_several_at_once_are_several_buses() -> None:
    with Broker() as one, Broker() as other:
        assert not set(one.addresses.values()) & set(other.addresses.values())
        async with connect(one.address) as bus, connect(other.address) as elsewhere, elsewhere.subscribe(">"):
            receipt = await bus.publish("a.b", receipt=True)
            assert receipt is not None
            assert receipt.matched == 0
        one.stop()
        assert (await round_trip(other.address)).payload == "payload"


async def test_one_after_the_other_start_empty() -> None:
    peers = []
    for _ in range(2):
        with Broker() as broker:
            peers.append((await round_trip(broker.address)).sender.id)
    assert peers[0] == peers[1]


@pytest.mark.parametrize(("size", "too_large"), [(999, False), (1000, False), (1001, True)])
async def test_limit_is_in_force(size: int, too_large: bool) -> None:
    with Broker(limits={"message_bytes": 1000}) as broker:
        # A msgpack bin of this size has three bytes in front.
        payload = bytes(size - 3)
        if too_large:
            with pytest.raises(MessageTooLarge, match="message_bytes = 1000"):
                await round_trip(broker.address, payload)
        else:
            assert (await round_trip(broker.address, payload)).payload == payload


@pytest.mark.parametrize(
    ("limits", "named"), [({"message_size": 5}, "message_bytes"), ({"handshakes": 0}, "handshakes")]
)
def test_limit_that_cannot_be_is_told_at_once(limits: dict[str, int], named: str) -> None:
    with pytest.raises(SockbusError, match=named):
        Broker(limits=limits)


def test_default_limits_are_not_those_of_the_broker_before() -> None:
    with Broker(limits={"subscriptions": 1}):
        pass

    async def subscribe_twice() -> int:
        async with connect(broker.address) as bus, bus.subscribe("a") as one, bus.subscribe("b") as other:
            return one.lost + other.lost

    with Broker() as broker:
        assert trio.run(subscribe_twice) == 0


# Where it can be


def test_in_a_plain_program() -> None:
    with Broker() as broker:
        assert trio.run(round_trip, broker.address).payload == "payload"


def test_inside_an_asyncio_loop_that_goes_on() -> None:
    async def main() -> object:
        with Broker() as broker:
            async with sockbus.asyncio.connect(broker.address) as bus, bus.subscribe("a.b") as messages:
                await bus.publish("a.b", "payload")
                message = await asyncio.wait_for(messages.receive(), PATIENCE)
        await asyncio.sleep(0)
        return message.payload

    assert asyncio.run(main()) == "payload"


def test_inside_a_trio_run_with_tasks_beside_it() -> None:
    async def main() -> list[object]:
        taken: list[object] = []

        async def take() -> None:
            taken.append((await round_trip(broker.address, len(taken))).payload)

        with Broker() as broker:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(take)
        await trio.lowlevel.checkpoint()
        return taken

    assert len(trio.run(main)) == 3


def test_in_a_thread_that_is_not_the_main_one() -> None:
    found: list[object] = []

    def program() -> None:
        with Broker() as broker:
            found.append(trio.run(round_trip, broker.address).payload)

    thread = threading.Thread(target=program)
    thread.start()
    thread.join()
    assert found == ["payload"]


def test_what_is_the_programs_stays_as_it_is() -> None:
    def state() -> list[object]:
        root = logging.getLogger()
        return [
            {number: signal.getsignal(number) for number in signal.valid_signals()},
            signal.set_wakeup_fd(-1),
            (root.level, list(root.handlers), logging.getLogger("sockbus").handlers, logging.raiseExceptions),
            dict(os.environ),
            resource.getrlimit(resource.RLIMIT_NOFILE),
            (threading.excepthook, sys.excepthook, sys.unraisablehook, sys.get_asyncgen_hooks()),
        ]

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft // 2, hard))
    try:
        before = state()
        with Broker() as broker:
            trio.run(round_trip, broker.address)
            assert state() == before
        assert state() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("more", [0, 1])
def test_temporary_directory_that_is_too_long_for_a_socket_is_not_used(
    more: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = tmp_path / ("x" * (80 - len(f"{tmp_path}/") + more))
    longest.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(longest))
    with Broker() as broker:
        assert trio.run(round_trip, broker.addresses["seqpacket"]).payload == "payload"
        assert broker.address.startswith("unix:/tmp/sockbus-" if more else f"unix:{longest}/sockbus-")
    assert list(longest.iterdir()) == []
