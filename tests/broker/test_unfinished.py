"""Messages that did not come whole, because their sender was killed, left, or thought better of it."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
import trio
import trio.testing

from sockbus.protocol.frame import Flag, Kind
from sockbus.trio import connect
from tests.broker.crowd import Stand, is_killed_in_mid_message
from tests.broker.outside import eventually, status
from tests.broker.raw import Raw, pieced
from tests.brokers import BrokerProcess

MIB = 1 << 20


def markers(reader: Raw) -> list[bytes]:
    """What comes until the last one."""
    came = []
    while not came or came[-1] != b"\x7f":
        came.append(reader.expect(Kind.PUBLISH, Kind.PIECE).content)
    return came


@pytest.mark.parametrize("how", ["closed", "reset", "goodbye", "killed"])
def test_message_that_did_not_come_whole_is_delivered_to_nobody(
    how: str, transport: str, common: BrokerProcess
) -> None:
    address = common.address(transport)
    with Raw(common.stream) as reader:
        reader.subscribe("crowd.killed")
        peers = status(common)["peers"]
        if how == "killed":
            is_killed_in_mid_message(Stand(address, 0, threading.Event()))
        else:
            with Raw(address) as peer:
                peer.send(peer.frame(Kind.PUBLISH, "crowd.killed", pieced(MIB, b"x"), 1, flags=Flag.PIECED))
                peer.send(peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1))
                if how == "goodbye":
                    peer.send(peer.control(Kind.GOODBYE, {"text": "left"}))
                    assert peer.until_end() == []
                elif how == "reset" and transport == "tcp":
                    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: len(status(common)["peers"]) == len(peers))
        reader.send(reader.frame(Kind.PUBLISH, "crowd.killed", b"\x7f"))
        assert markers(reader) == [b"\x7f"]
        assert status(common)["queues"]["bytes"] < 10_000


def test_cancelled_publish_is_delivered_wholly_or_not_at_all(transport: str, common: BrokerProcess) -> None:
    """A publisher whose window is spent on a reader without credit, cancelled in a message of a hundred pieces."""
    large = b"y" * (6 * MIB)
    sizes: list[int] = []

    async def publish() -> None:
        async with connect(common.address(transport)) as bus:
            while True:
                await bus.publish("cancelled", large)

    async def publish_for_a_while() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()

    with Raw(common.stream) as reader:
        reader.subscribe("cancelled", credit=(1, 1 << 40, 1))
        reader.send(reader.frame(Kind.PUBLISH, "cancelled", b"\x01"))
        assert reader.expect(Kind.PUBLISH).content == b"\x01"
        trio.run(publish_for_a_while)
        reader.send(reader.frame(Kind.PUBLISH, "cancelled", b"\x7f"))
        while 1 not in sizes:
            reader.send(reader.control(Kind.CREDIT, [1, 0, 0], correlation=1))
            frame = reader.expect(Kind.PUBLISH)
            came = len(frame.content)
            if frame.flags & Flag.PIECED:
                (total,) = struct.unpack_from(">Q", frame.content)
                came -= 8
                while came < total:
                    came += len(reader.expect(Kind.PIECE).content)
            sizes.append(came)
    assert set(sizes[:-1]) <= {len(large) + 5}
    assert sizes[-1] == 1
