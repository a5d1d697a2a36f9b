"""A program whose Ctrl-C comes everywhere: ``python -m tests.blocking.interrupted ADDRESS TOPIC CALL``.

The call is made again and again, and SIGINT is raised at the first place inside sockbus where CPython may run a handler
(a call, or the return of one), at the second, … until one call passes unharmed. After each, nothing is lost, torn or
left open, and the next call works. Prints how many were interrupted.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import sockbus
from sockbus import BusState
from sockbus.blocking import Bus, Subscription, connect
from sockbus.client import keeping
from sockbus.fd import closing_settled

PACKAGE = str(Path(sockbus.__file__).parent)
# More places than any call here has.
MOST = 5000


def interrupted_at(count: int, call: Callable[[], object]) -> bool:
    """Make a call, and raise SIGINT at the ``count``-th place; whether there was one, and KeyboardInterrupt came."""
    left = count

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        if frame.f_code.co_filename.startswith(PACKAGE):
            left -= 1
            if not left:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    came = False
    try:
        sys.setprofile(look)
        try:
            call()
        finally:
            sys.setprofile(None)
    except KeyboardInterrupt:
        came = True
    if left <= 0 and not came:
        # It came when the call was all but over, and is raised by the next one.
        try:
            after()
        except KeyboardInterrupt:
            came = True
        assert came, f"the interrupt at place {count} was swallowed"
    return came


def after() -> None:
    """Any call of a bus."""
    helper.flush()


def at_every_place(call: Callable[[], object], check: Callable[[], object]) -> int:
    """How many calls were interrupted until one passed unharmed; ``check`` is made after each."""
    for count in range(1, MOST):
        came = interrupted_at(count, call)
        check()
        if not came:
            return count - 1
    raise AssertionError(f"the call has more than {MOST} places")


def descriptors() -> int:
    gc.collect()
    assert closing_settled(10)
    return len(os.listdir("/proc/self/fd"))


def memfd(number: int) -> int:
    fd = os.memfd_create("passed")
    os.write(fd, b"%d" % number)
    return fd


class Numbers:
    """Numbers that are published to itself, each with a file that holds it where the link carries some."""

    def __init__(self, bus: Bus, topic: str, **options: Any) -> None:
        self.bus = bus
        self.topic = topic
        self.options = options
        self.next = 0
        self.came: list[int] = []

    def publish(self) -> None:
        number, self.next = self.next, self.next + 1
        if self.bus.transport == "tcp":
            self.bus.publish(self.topic, [number, b"x" * 100], **self.options)
            return
        fd = memfd(number)
        try:
            self.bus.publish(self.topic, [number, b"x" * 100], fds=[fd, fd], **self.options)
        finally:
            os.close(fd)

    def note(self, message: sockbus.Message) -> None:
        number = message.payload[0]
        with message:
            held = [os.pread(fd.fileno(), 20, 0) for fd in message.fds]
        assert held == ([] if self.bus.transport == "tcp" else [b"%d" % number] * 2), (number, held)
        assert message.lost == 0
        self.came.append(number)


def publish(address: str, topic: str, **options: Any) -> int:
    """Sent wholly or not at all."""
    with connect(address) as bus, bus.subscribe(topic) as messages:
        numbers = Numbers(bus, topic, **options)
        before = descriptors()

        def check() -> None:
            bus.publish(topic, "over")
            while (message := messages.receive(timeout=10)).payload != "over":
                numbers.note(message)
            assert numbers.came == sorted(set(numbers.came))
            assert numbers.came[-1:] in ([numbers.next - 1], [numbers.next - 2], [])
            assert descriptors() == before

        return at_every_place(numbers.publish, check)


def publish_in_batch(address: str, topic: str) -> int:
    with connect(address) as bus, bus.subscribe(topic) as messages:
        sent = 0
        came: list[int] = []

        def work() -> None:
            nonlocal sent
            with bus.batch():
                for _ in range(3):
                    bus.publish(topic, sent)
                    sent += 1

        def check() -> None:
            nonlocal sent
            bus.publish(topic, "over")
            while (message := messages.receive(timeout=10)).payload != "over":
                came.append(message.payload)
            assert came == sorted(set(came))
            # Of what returned nothing is missing.
            assert set(range(sent)) <= set(came)
            sent = max([sent - 1, *came]) + 1

        return at_every_place(work, check)


def take(address: str, topic: str, how: str, **options: Any) -> int:
    """A message that was taken is handed over."""
    with connect(address) as bus, bus.subscribe(topic, **options) as messages:
        numbers = Numbers(bus, topic)
        before = descriptors()
        taken: list[sockbus.Message] = []

        def work() -> None:
            if how == "receive":
                taken.append(messages.receive(timeout=10))
            elif how == "iterate":
                for message in messages:
                    taken.append(message)  # no other call must come between
                    break
            else:
                for batch in messages.batches(timeout=10):
                    taken.extend(batch)
                    break

        def check() -> None:
            while taken:
                numbers.note(taken.pop(0))
            while len(numbers.came) < numbers.next:
                numbers.note(messages.receive(timeout=10))
            assert numbers.came == list(range(numbers.next))
            assert descriptors() == before
            for _ in range(2):
                numbers.publish()

        check()
        return at_every_place(work, check)


def request(address: str, topic: str) -> int:
    """Its reply, or none; replies never mix."""
    with connect(address) as bus:
        number = 0
        before = descriptors()
        carries = bus.transport != "tcp"

        def work() -> None:
            nonlocal number
            number += 1
            fd = memfd(number)
            try:
                with bus.request(topic, number, fds=[fd] if carries else [], timeout=10) as reply:
                    assert reply.payload == number
                    assert [os.pread(fd.fileno(), 20, 0) for fd in reply.fds] == ([b"%d" % number] if carries else [])
            finally:
                os.close(fd)

        def check() -> None:
            work()
            assert descriptors() == before

        return at_every_place(work, check)


def flush(address: str, topic: str) -> int:
    with connect(address) as bus:

        def work() -> None:
            bus.publish(topic)
            bus.flush(timeout=10)

        return at_every_place(work, work)


def subscribe(address: str, topic: str) -> int:
    with connect(address) as bus:

        def enter() -> None:
            with bus.subscribe(topic) as messages:
                assert isinstance(messages, Subscription)

        def check() -> None:
            with bus.subscribe(topic) as messages:
                bus.publish(topic, "x")
                assert messages.receive(timeout=10).payload == "x"
                status = bus.request("$SYS.status", timeout=10).payload
            assert [row["pattern"] for row in status["subscriptions"]].count(topic) == 1

        return at_every_place(enter, check)


def come_and_go(address: str, topic: str) -> int:
    before = descriptors()

    def work() -> None:
        with connect(address) as bus:
            bus.publish(topic, fds=[] if bus.transport == "tcp" else [0])

    def check() -> None:
        assert descriptors() == before
        work()

    return at_every_place(work, check)


def reconnect(address: str, topic: str) -> int:
    """What was cut off is connected again, in whatever call."""
    # Each connection here lasts for less, and the next attempt would come later and later.
    keeping.SETTLED_SECONDS = 0.0
    # More than a pipe holds.
    logging.disable()
    with connect(address) as bus, bus.subscribe(topic) as messages:
        number = 0
        before = descriptors()

        def wait() -> None:
            while bus.state is not BusState.CONNECTED:
                bus.state_changed(timeout=10)

        def work() -> None:
            bus._waits.channel.sock.shutdown(socket.SHUT_RDWR)
            wait()

        def check() -> None:
            nonlocal number
            wait()
            number += 1
            bus.publish(topic, number, receipt=True, timeout=10)
            assert messages.receive(timeout=10).payload == number
            assert descriptors() == before
            status = bus.request("$SYS.status", timeout=10).payload
            assert [row["pattern"] for row in status["subscriptions"]].count(topic) == 1

        return at_every_place(work, check)


CALLS: dict[str, Callable[[str, str], int]] = {
    "publish": publish,
    "publish with receipt": lambda address, topic: publish(address, topic, receipt=True, headers={"h": 1}),
    "publish in batch": publish_in_batch,
    "receive": lambda address, topic: take(address, topic, "receive"),
    "iterate": lambda address, topic: take(address, topic, "iterate"),
    "iterate in a group": lambda address, topic: take(address, topic, "iterate", group="g"),
    "batches": lambda address, topic: take(address, topic, "batches"),
    "batches in a group": lambda address, topic: take(address, topic, "batches", group="g"),
    "request": request,
    "flush": flush,
    "subscribe": subscribe,
    "connect": come_and_go,
    "reconnect": reconnect,
}

if __name__ == "__main__":
    place, name, what = sys.argv[1:]
    with connect(place) as helper:
        # What is there already need not be gone through after each interrupt.
        gc.freeze()
        print(CALLS[what](place, name))
