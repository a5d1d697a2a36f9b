"""A storm of file descriptors, with readers killed in the middle of it: nothing leaks, and the sums are right."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

from sockbus import Receipt
from tests.brokers import BrokerProcess, Program
from tests.contract.peers import peer
from tests.contract.runtime import Runtime
from tests.contract.status import fds_of, settled, until

SEED = 1_914
MESSAGES = 10_000
KILLS = 12
PUBLISHERS = 32
READERS = ("seqpacket", "stream", "stream", "tcp")


class Readers:
    """Reader processes, of which one after the other is killed and started again."""

    def __init__(self, broker: BrokerProcess, stack: contextlib.ExitStack) -> None:
        self._broker = broker
        self._stack = stack
        self._choose = random.Random(SEED)
        self._one_at_a_time = threading.Lock()
        self.running = [self._start(transport) for transport in READERS]
        self.killed: list[Program] = []

    def _start(self, transport: str) -> Program:
        return self._stack.enter_context(peer("check", self._broker.address(transport), "storm"))

    def kill_one(self) -> None:
        with self._one_at_a_time:
            index = self._choose.randrange(len(READERS))
            self.running[index].process.kill()
            self.killed.append(self.running[index])
            self.running[index] = self._start(READERS[index])


class Storm:
    """Publishes numbers, each with its file, from many tasks, and calls for a kill every now and then."""

    def __init__(self, runtime: Runtime, readers: Readers) -> None:
        self._runtime = runtime
        self._readers = readers
        self._numbers = iter(range(MESSAGES))
        self._kills = set(random.Random(SEED).sample(range(MESSAGES // 20, MESSAGES), KILLS))
        self.receipts: list[Receipt] = []

    async def publish(self, bus: Any) -> None:
        for number in self._numbers:
            if number in self._kills:
                await self._runtime.in_thread(self._readers.kill_one)
            with files(number) as fds:
                self.receipts.append(await bus.publish("storm", number, fds=fds, receipt=True))


@contextlib.contextmanager
def files(number: int) -> Iterator[list[int]]:
    """One to three descriptors of a file that holds the number."""
    fd = os.memfd_create("storm")
    try:
        os.write(fd, b"%d" % number)
        yield [fd] * (1 + number % 3)
    finally:
        os.close(fd)


async def test_readers_killed_in_a_storm_of_fds_cost_nobody_anything(runtime: Runtime) -> None:
    with BrokerProcess() as broker, contextlib.ExitStack() as stack:
        async with runtime.connect(broker.seqpacket) as one, runtime.connect(broker.stream) as two:
            here, there = fds_of(os.getpid()), fds_of(broker.pid)
            readers = Readers(broker, stack)
            open_in_readers = [fds_of(reader.process.pid) for reader in readers.running]
            storm = Storm(runtime, readers)
            publishers = [functools.partial(storm.publish, bus) for bus in (one, two)]
            await runtime.gather(*publishers * (PUBLISHERS // 2))
            assert_sums(storm.receipts)
            assert [reader.code() for reader in readers.killed] == [-9] * KILLS

            found = await until(one, lambda found: not any(row["outstanding"] for row in found["subscriptions"]))
            assert (found["fds"]["held"], len(found["subscriptions"])) == (0, len(READERS))
            for reader, before in zip(readers.running, open_in_readers, strict=True):
                assert reader.process.poll() is None, reader.err.rest().decode()
                assert settled(functools.partial(fds_of, reader.process.pid), before) == before
            stack.close()
            await until(one, lambda found: not found["subscriptions"])
            assert settled(lambda: fds_of(broker.pid), there) == there
            assert settled(lambda: fds_of(os.getpid()), here) == here


def assert_sums(receipts: list[Receipt]) -> None:
    assert len(receipts) == MESSAGES
    assert all(receipt.delivered + receipt.dropped == receipt.matched for receipt in receipts)
    assert not any(receipt.without_fds for receipt in receipts)
    assert sum(receipt.delivered for receipt in receipts) > MESSAGES
