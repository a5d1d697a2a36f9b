"""What the tests here do with a broker, and how they see what is left of one."""

from __future__ import annotations

import threading

import trio

from sockbus import ConnectError, Message
from sockbus.trio import connect
from tests.brokers import PATIENCE

SCHEMES = ["unix", "seqpacket", "stream", "tcp"]


def brokers_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sockbus-broker"]


async def round_trip(address: str, payload: object = "payload") -> Message:
    """Publish a message and take it."""
    with trio.fail_after(PATIENCE):
        async with connect(address) as bus, bus.subscribe("a.b") as messages:
            await bus.publish("a.b", payload)
            return await messages.receive()


async def is_absent(address: str) -> bool:
    """Whether nobody accepts connections at an address."""
    try:
        async with connect(address):
            return False
    except ConnectError:
        return True
