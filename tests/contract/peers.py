"""Programs that tests run as processes of their own, to kill them: ``python -m tests.contract.peers VERB ADDRESS …``.

Each says in a line of its own what has come about. They use Trio whatever runtime is tested: to the broker, and so to
the runtime at the other end, all are alike.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import trio

from sockbus.message import Message, Will
from sockbus.trio import Bus, connect
from tests.brokers import Program


def say(line: object) -> None:
    print(line, flush=True)


def program(verb: str, *arguments: str) -> list[str]:
    """Its command line."""
    return [sys.executable, "-m", "tests.contract.peers", verb, *arguments]


@contextlib.contextmanager
def peer(verb: str, *arguments: str) -> Iterator[Program]:
    """A peer in a process of its own, once it has said that it is ready; killed at the end."""
    with Program(program(verb, *arguments)) as running:
        line = running.out.next()
        assert line == "ready", line + running.err.rest().decode()
        yield running


@contextlib.asynccontextmanager
async def _serving(bus: Bus, pattern: str, handler: object) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.serve, pattern, handler)
        yield
        nursery.cancel_scope.cancel()


async def hold(address: str, pattern: str) -> None:
    """Serve and never reply: `called` for each request."""

    async def handler(_: Message) -> None:
        say("called")
        await trio.sleep_forever()

    async with connect(address) as bus, _serving(bus, pattern, handler):
        say("ready")
        await trio.sleep_forever()


async def take(address: str, pattern: str, group: str = "", fds: str = "reject") -> None:
    """Subscribe, and print the payload and the contents of the fds of each message."""
    async with connect(address) as bus, bus.subscribe(pattern, group=group or None, fds=fds) as messages:
        say("ready")
        async for message in messages:
            with message:
                say([message.payload, [os.pread(fd.fileno(), 64, 0) for fd in message.fds]])


async def check(address: str, pattern: str) -> None:
    """Subscribe, and end with an error when a file does not hold the number that its message is."""
    async with connect(address) as bus, bus.subscribe(pattern, fds="strip") as messages:
        say("ready")
        async for message in messages:
            with message:
                number = message.payload
                count = len(message.fds) + message.fds_missing
                held = [os.pread(fd.fileno(), 64, 0) for fd in message.fds]
                if count != 1 + number % 3 or any(content != b"%d" % number for content in held):
                    raise AssertionError(f"message {number} came with {held} and {message.fds_missing} missing")


async def hoard(address: str, pattern: str, group: str = "") -> None:
    """Subscribe and take nothing."""
    async with connect(address) as bus, bus.subscribe(pattern, group=group or None):
        say("ready")
        await trio.sleep_forever()


async def bequeath(address: str, topic: str, retain: str = "") -> None:
    """Leave a will, and publish on each line of stdin."""
    will = Will(topic, "gone", retain=bool(retain))
    async with connect(address, name="testator", will=will) as bus:
        say("ready")
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            await bus.publish(topic, line.strip())
            await bus.flush()
            say("published")


async def where() -> None:
    """Connect to the default address, and print the road taken."""
    async with connect() as bus:
        say(bus.address)


async def lend(address: str, topic: str) -> None:
    """Leave a listening socket with the broker."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with connect(address, name="lender") as bus:
            await bus.publish(topic, "listener", fds=[listener], retain=True)
            say("ready")
            await trio.sleep_forever()


async def publish(address: str, topic: str, count: str) -> None:
    """Publish numbers with an fd each, and leave at once."""
    say("ready")
    async with connect(address) as bus:
        for number in range(int(count)):
            fd = os.memfd_create("published")
            os.write(fd, str(number).encode())
            await bus.publish(topic, number, fds=[fd])
            os.close(fd)
    say("left")


async def begin(address: str, topic: str) -> None:
    """On a line of stdin, publish a message too large to leave at once, with an fd where the link carries some."""
    async with connect(address) as bus:
        say("ready")
        await trio.to_thread.run_sync(sys.stdin.readline)
        await bus.publish(topic, b"x" * (32 << 20), fds=[] if bus.transport == "tcp" else [0])
        say("begun")
        await trio.sleep_forever()


VERBS = {
    "begin": begin, "bequeath": bequeath, "check": check, "hold": hold, "hoard": hoard, "lend": lend,
    "publish": publish, "take": take, "where": where,
}  # fmt: skip

if __name__ == "__main__":
    trio.run(VERBS[sys.argv[1]], *sys.argv[2:])
