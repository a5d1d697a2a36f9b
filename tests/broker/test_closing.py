"""Stopping, frame by frame: who has gone on reading, and who comes when it has begun."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
import trio.testing

from sockbus.address import Address
from sockbus.broker.config import Config
from sockbus.broker.server import Server
from sockbus.protocol.frame import Kind, control
from tests.broker.raw import Raw, hello
from tests.brokers import BrokerProcess


async def test_credit_that_crosses_the_goodbye_is_no_violation(
    nursery: trio.Nursery, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader was woken by it in the same pass in which the broker takes its leave; which runs first is chance."""
    server = Server(Config([Address.parse(f"unix:{place}/bus")]))
    await nursery.start(server.serve)
    goodbye = control(Kind.GOODBYE, {"text": "the broker is stopping"})

    def come() -> Raw:
        peer = Raw(f"stream:{place}/bus/stream")
        peer.subscribe("a")
        peer.send(peer.frame(Kind.PUBLISH, "a"))
        peer.expect(Kind.PUBLISH)
        return peer

    for _ in range(20):
        with await trio.to_thread.run_sync(come) as peer:
            link = server.hub.links[peer.number]
            peer.send(peer.control(Kind.CREDIT, [1, 28, 0], correlation=1))
            await trio.lowlevel.checkpoint()
            link.unsubscribe()
            link.leave_off(goodbye)
            server.hub.settle()
            assert (await trio.to_thread.run_sync(peer.expect, Kind.GOODBYE, Kind.ERROR)).kind is Kind.GOODBYE
            await trio.testing.wait_all_tasks_blocked()
            assert not link.gone
    server.stop()
    assert caplog.messages == []


def test_peer_that_comes_while_the_broker_stops_is_told(transport: str) -> None:
    with (
        BrokerProcess() as broker,
        Raw(broker.address(transport), greet=False) as late,
        Raw(broker.address(transport)) as slow,
        Raw(broker.address(transport)) as idle,
    ):
        slow.subscribe("a", credit=(1, 1, 1), stall=1000)
        slow.send(slow.frame(Kind.PUBLISH, "a") * 2)
        slow.expect(Kind.PUBLISH)
        os.kill(broker.pid, signal.SIGTERM)
        idle.expect(Kind.GOODBYE)
        # The broker has begun to stop, and waits for the slow one.
        late.send(hello())
        assert [frame.kind for frame in (late.next(), late.next()) if frame] == [Kind.WELCOME, Kind.GOODBYE]
        slow.send(slow.control(Kind.CREDIT, [1, 28, 0], correlation=1))
        slow.expect(Kind.PUBLISH)
        slow.expect(Kind.GOODBYE)
        assert not late.until_end()
        broker.stop()


def test_little_credit_is_used_while_the_broker_stops(transport: str) -> None:
    with (
        BrokerProcess() as broker,
        Raw(broker.address(transport)) as slow,
        Raw(broker.address(transport)) as idle,
    ):
        slow.subscribe("a", credit=(100, 1 << 20, 1))
        slow.send(slow.frame(Kind.PUBLISH, "a") * 110)
        for _ in range(100):
            slow.expect(Kind.PUBLISH)
        os.kill(broker.pid, signal.SIGTERM)
        idle.expect(Kind.GOODBYE)
        slow.send(slow.control(Kind.CREDIT, [10, 280, 0], correlation=1))
        # One that waited until the time of grace is over would come with a loss.
        assert [slow.expect(Kind.PUBLISH, Kind.GOODBYE).kind for _ in range(11)] == [Kind.PUBLISH] * 10 + [Kind.GOODBYE]
        broker.stop()
