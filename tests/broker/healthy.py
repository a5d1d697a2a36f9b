"""Two honest clients that never stop exchanging, in a process of their own, and the test's hold on them.

Each round publishes a number, with a file where the transport carries fds, and asks for its echo; what comes must be
that number, with that file, nothing lost before it. The first round that goes wrong ends the exchange, and
``HealthyPair.proceed`` says how.
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import Self

import trio

from sockbus import Message
from sockbus.trio import Bus, Subscription, connect
from tests.brokers import Program, environment

__all__ = ["FILE", "HealthyPair"]

PATIENCE = 20.0  # seconds that one round may take before it counts as held up
# Seconds between two rounds: the processors belong to what is tested.
PACE = 0.002
#: the name of the files that are passed, by which they are known among a broker's descriptors
FILE = "healthy"


class HealthyPair:
    """The pair on one address, as a context manager; it runs until the end of the block."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> Self:
        receive, self._send = os.pipe()
        try:
            self._program = Program(
                [sys.executable, "-m", "tests.broker.healthy", self._address], env=environment(), stdin=receive
            )
        finally:
            os.close(receive)
        self.proceed()
        return self

    def proceed(self) -> None:
        """Wait until a few more rounds have been made; AssertionError when one has failed."""
        os.write(self._send, b"\n")
        said = self._program.out.next()
        assert said == "well", self._program.err.rest().decode()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._send)
        with self._program:
            if error is None:
                assert self._program.code() == 0, self._program.err.rest().decode()


async def _exchange(address: str, asked: threading.Semaphore, over: threading.Event) -> None:
    topic = f"healthy.t{os.getpid()}"

    def echo(message: Message) -> object:
        return message.payload

    async with (
        connect(address, name="healthy publisher") as near,
        connect(address, name="healthy subscriber") as far,
        far.subscribe(topic) as readings,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(far.serve, f"{topic}.echo", echo)
        number = 0
        while not over.is_set():
            for _ in range(3):
                number += 1
                with trio.fail_after(PATIENCE):
                    await _round(near, topic, readings, number)
            if asked.acquire(blocking=False):
                print("well", flush=True)
            await trio.sleep(PACE)
        nursery.cancel_scope.cancel()


async def _round(near: Bus, topic: str, readings: Subscription, number: int) -> None:
    fd = os.memfd_create(FILE)
    try:
        os.write(fd, b"%d" % number)
        await near.publish(topic, number, fds=[fd] if near.transport != "tcp" else ())
    finally:
        os.close(fd)
    with await readings.receive() as message:
        assert (message.payload, message.lost, message.fds_missing) == (number, 0, 0)
        assert [os.pread(fd.fileno(), 99, 0) for fd in message.fds] == ([b"%d" % number] * len(message.fds))
        assert bool(message.fds) == (near.transport != "tcp")
    with await near.request(f"{topic}.echo", number, timeout=PATIENCE) as reply:
        assert reply.payload == number


def _main() -> None:
    asked, over = threading.Semaphore(0), threading.Event()

    def listen() -> None:
        while asking := os.read(0, 1):
            asked.release(len(asking))
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    trio.run(_exchange, sys.argv[1], asked, over)


if __name__ == "__main__":
    _main()
