"""Who is there: wills, and the events of peers that come and go."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import ConnectionLost, InvalidTopic, MessageTooLarge, PayloadError, PermissionDenied, Will
from tests.brokers import Program
from tests.contract.peers import program
from tests.contract.runtime import Runtime

Connect = Callable[..., Any]


def cut(bus: Any) -> None:
    """End the connection as a broken cable would."""
    bus._waits.channel.sock.shutdown(socket.SHUT_RDWR)


async def next_about(messages: Any, peer: int) -> Any:
    """The next event about a peer."""
    while (message := await messages.receive()).payload["id"] != peer:
        continue
    return message


async def test_will_is_published_when_the_connection_breaks(connect: Connect, topic: str) -> None:
    async with connect() as other, other.subscribe(topic) as messages:
        with contextlib.suppress(ConnectionLost):
            async with connect(name="testator", will=Will(topic, {"up": False})) as bus:
                number = bus.peer.id
                await bus.publish(topic, 1)
                await bus.flush()
                cut(bus)
        assert (await messages.receive()).payload == 1
        message = await messages.receive()
        assert (message.payload, message.sender.id, message.sender.name) == ({"up": False}, number, "testator")


async def test_will_is_published_when_the_process_is_killed(connect: Connect, address: str, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        with Program(program("bequeath", address, topic), stdin=subprocess.PIPE) as peer:
            assert peer.out.next() == "ready"
            assert peer.process.stdin is not None
            peer.process.stdin.write(b"last\n")
            peer.process.stdin.flush()
            assert peer.out.next() == "published"
            peer.signal(signal.SIGKILL)
            assert [(await messages.receive()).payload for _ in range(2)] == ["last", "gone"]


@pytest.mark.parametrize("raises", [False, True])
async def test_will_of_who_leaves_is_not_published(connect: Connect, topic: str, raises: bool) -> None:
    async with connect() as other, other.subscribe(topic) as messages, other.subscribe("$SYS.peer.left") as left:
        with contextlib.suppress(KeyError):
            async with connect(will=Will(topic, "gone")) as bus:
                number = bus.peer.id
                if raises:
                    raise KeyError
        assert (await next_about(left, number)).payload["reason"] == "left"
        await other.publish(topic, "still here")
        assert (await messages.receive()).payload == "still here"


async def test_peers_are_told_of_who_comes_and_goes(connect: Connect) -> None:
    async with connect() as other, other.subscribe("$SYS.peer.*") as events:
        async with connect(name="comes") as bus:
            peer = bus.peer
            joined = await next_about(events, peer.id)
        left = await next_about(events, peer.id)
        about = {
            "id": peer.id,
            "name": "comes",
            "transport": bus.transport,
            "uid": peer.uid,
            "gid": peer.gid,
            "pid": peer.pid,
        }
        assert (joined.topic, joined.payload) == ("$SYS.peer.joined", about)
        assert (left.topic, left.payload) == ("$SYS.peer.left", {**about, "reason": "left"})
        assert joined.sender.id == left.sender.id == 0
        assert joined.sender.pid not in (None, os.getpid())


async def test_broker_tells_who_is_there_and_what_they_listen_to(connect: Connect, topic: str) -> None:
    async with connect(name="asks") as bus, bus.subscribe(f"{topic}.*", group="g"):
        peers = (await bus.request("$SYS.peers")).payload
        (me,) = [row for row in peers if row["id"] == bus.peer.id]
        assert (me["name"], me["transport"], me["pid"], me["uid"]) == (
            "asks",
            bus.transport,
            bus.peer.pid,
            bus.peer.uid,
        )
        rows = (await bus.request("$SYS.subscriptions")).payload
        (mine,) = [row for row in rows if row["peer"] == bus.peer.id]
        assert (mine["pattern"], mine["group"], mine["outstanding"]) == (f"{topic}.*", "g", 0)
        status = (await bus.request("$SYS.status")).payload
        assert mine in status["subscriptions"]
        assert {row["id"] for row in status["peers"]} >= {bus.peer.id}


@pytest.mark.parametrize(
    ("will", "error"),
    [
        (Will("no topic"), InvalidTopic),
        (Will("a.*"), InvalidTopic),
        (Will("$SYS.peer.left"), PermissionDenied),
        (Will("a", object()), PayloadError),
        (Will("a", bytes(70_000)), MessageTooLarge),
        (("a", "gone"), TypeError),
    ],
)
async def test_will_that_cannot_be_left_is_said_at_once(connect: Connect, will: Will, error: type[Exception]) -> None:
    with pytest.raises(error):
        async with connect(will=will):
            pass


async def test_largest_will_is_published(connect: Connect, topic: str) -> None:
    payload = bytes(65_536 - 26 - len(topic) - 3)
    async with connect() as other, other.subscribe(topic) as messages:
        with contextlib.suppress(ConnectionLost):
            async with connect(will=Will(topic, payload)) as bus:
                cut(bus)
        assert (await messages.receive()).payload == payload


def test_will_says_what_it_is(runtime: Runtime) -> None:
    assert Will("a", 1, retain=True) == Will(topic="a", payload=1, retain=True)
    assert (Will("a").payload, Will("a").retain) == (None, False)
