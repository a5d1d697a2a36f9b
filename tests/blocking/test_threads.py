"""Many threads on one bus: each gets what is its own, whoever of them reads, and no thread is there but theirs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from sockbus import ConnectionLost, Message
from sockbus.blocking import Bus, connect
from tests.contract.runtime import PATIENCE

COUNT = 400


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Make all calls at once, each in a thread, and give their results in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures: list[Future[Any]] = [pool.submit(call) for call in calls]
        return [future.result(PATIENCE) for future in futures]


class Serving:
    """A server in a thread, for as long as its bus lasts."""

    def __init__(self, bus: Bus, pattern: str, handler: Callable[[Message], Any], **options: Any) -> None:
        in_force = threading.Event()
        self.thread = threading.Thread(
            target=bus.serve, args=(pattern, handler), kwargs={"task_status": in_force, **options}
        )
        self.thread.start()
        assert in_force.wait(PATIENCE)


def test_sixteen_threads_on_one_bus_do_everything_at_once(address: str, topic: str) -> None:
    with connect(address) as bus:
        serving = Serving(bus, f"{topic}.echo", lambda request: request.payload)

        def publish(number: int) -> None:
            for count in range(COUNT):
                bus.publish(f"{topic}.numbers", [number, count], receipt=count % 50 == 0)

        def publish_in_batches(number: int) -> None:
            for start in range(0, COUNT, 20):
                with bus.batch():
                    for count in range(start, start + 20):
                        bus.publish(f"{topic}.numbers", [number, count])

        def ask(number: int) -> None:
            for count in range(COUNT // 4):
                assert bus.request(f"{topic}.echo", [number, count], timeout=PATIENCE).payload == [number, count]

        def come_and_go(number: int) -> None:
            for count in range(COUNT // 8):
                with bus.subscribe(f"{topic}.own.{number}") as own:
                    bus.publish(f"{topic}.own.{number}", count)
                    assert own.receive(timeout=PATIENCE).payload == count
                bus.flush()

        def pass_files(number: int) -> None:
            with bus.subscribe(f"{topic}.files.{number}") as files:
                for count in range(COUNT // 8):
                    fd = os.memfd_create("passed")
                    os.write(fd, b"%d" % count)
                    bus.publish(f"{topic}.files.{number}", fds=[] if bus.transport == "tcp" else [fd])
                    os.close(fd)
                    with files.receive(timeout=PATIENCE) as message:
                        held = [os.pread(fd.fileno(), 20, 0) for fd in message.fds]
                    assert held == ([] if bus.transport == "tcp" else [b"%d" % count])

        taken: list[list[int]] = []

        def take() -> None:
            for message in numbers:
                taken.append(message.payload)
                if message.payload == "over":
                    return

        def take_batches() -> None:
            for batch in numbers.batches(timeout=PATIENCE):
                payloads = [message.payload for message in batch]
                taken.extend(payloads)
                for _ in range(payloads.count("over") - 1):
                    # It was for another one.
                    bus.publish(f"{topic}.numbers", "over")
                if "over" in payloads:
                    return

        with (
            bus.subscribe(f"{topic}.numbers", capacity=100) as numbers,
            bus.subscribe(f"{topic}.numbers", capacity=1 << 20) as all_of_it,
        ):
            writers = [lambda n=n: publish(n) for n in range(3)] + [lambda n=n: publish_in_batches(n) for n in (3, 4)]
            others = [lambda n=n: ask(n) for n in range(4)] + [lambda n=n: come_and_go(n) for n in range(2)]
            others += [lambda n=n: pass_files(n) for n in range(2)]
            takers = [take, take_batches, take]
            with ThreadPoolExecutor(len(takers)) as pool:
                taking = [pool.submit(taker) for taker in takers]
                in_threads(*writers, *others)
                for _ in takers:
                    # One for each of those that still take.
                    bus.publish(f"{topic}.numbers", "over", receipt=True)
                for future in taking:
                    future.result(PATIENCE)
            came = [all_of_it.receive(timeout=PATIENCE).payload for _ in range(5 * COUNT)]
    serving.thread.join(PATIENCE)
    for number in range(5):
        assert [count for writer, count in came if writer == number] == list(range(COUNT))
    assert sorted(pair for pair in taken if pair != "over") == sorted(came)
    assert all_of_it.lost == numbers.lost == 0


def test_one_publishes_while_another_iterates(address: str, topic: str) -> None:
    with connect(address) as bus, bus.subscribe(topic, capacity=16) as messages:

        def take() -> list[int]:
            came: list[int] = []
            for message in messages:
                came.append(message.payload)
                if len(came) == COUNT:
                    break
            return came

        def publish() -> None:
            for number in range(COUNT):
                bus.publish(topic, number)

        assert in_threads(take, publish)[0] == list(range(COUNT))


def test_reader_that_has_what_it_wants_hands_reading_on(address: str, topic: str) -> None:
    """Of those who wait one reads for all; whichever it is, the others get theirs when it has left."""
    with connect(address) as bus:
        subscriptions = [bus.subscribe(f"{topic}.{number}") for number in range(8)]
        for subscription in subscriptions:
            subscription.__enter__()

        def take(number: int) -> int:
            payload: int = subscriptions[number].receive(timeout=PATIENCE).payload
            return payload

        with ThreadPoolExecutor(8) as pool, connect(address) as other:
            futures = [pool.submit(take, number) for number in range(8)]
            for number in (3, 0, 7, 1, 2, 6, 5, 4):
                other.publish(f"{topic}.{number}", number, receipt=True)
                assert futures[number].result(PATIENCE) == number


def test_threads_that_wait_hear_that_the_bus_was_left(address: str, topic: str) -> None:
    waiting = threading.Barrier(4, timeout=PATIENCE)

    def lost(call: Callable[[], Any]) -> str:
        waiting.wait()
        with pytest.raises(ConnectionLost) as caught:
            call()
        return str(caught.value)

    def hold(_: Message) -> None:
        held.wait(PATIENCE)

    held = threading.Event()
    with connect(address) as server, ThreadPoolExecutor(4) as pool:
        serving = Serving(server, topic, hold)
        with connect(address) as bus:
            messages = bus.subscribe(f"{topic}.quiet")
            messages.__enter__()
            calls = [messages.receive, lambda: next(messages), lambda: bus.request(topic, timeout=None)]
            futures = [pool.submit(lost, call) for call in calls]
            waiting.wait()
        assert {future.result(PATIENCE) for future in futures} == {"this bus was left; connect again to use it"}
        held.set()
    serving.thread.join(PATIENCE)


def test_there_is_no_thread_but_the_programs_own(address: str, topic: str) -> None:
    before = threading.enumerate()
    with connect(address) as bus, bus.subscribe(topic) as messages:
        bus.publish(topic, "x", receipt=True)
        assert messages.receive().payload == "x"
        bus.request("$SYS.status")
        bus.flush()
        assert threading.enumerate() == before
        with bus.background():
            assert len(threading.enumerate()) == len(before) + 1
        assert threading.enumerate() == before


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_handlers_run_at_once_as_concurrency_says(address: str, topic: str, concurrency: int) -> None:
    most = now = 0
    lock = threading.Lock()
    full = threading.Barrier(concurrency, timeout=PATIENCE)

    def handler(request: Message) -> int:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        full.wait()
        with lock:
            now -= 1
        payload: int = request.payload
        return payload

    with connect(address) as server, connect(address) as bus:
        serving = Serving(server, topic, handler, concurrency=concurrency)

        def ask(number: int) -> int:
            payload: int = bus.request(topic, number, timeout=PATIENCE).payload
            return payload

        assert in_threads(*(lambda n=n: ask(n) for n in range(6))) == list(range(6))
    serving.thread.join(PATIENCE)
    assert most == concurrency


def test_handler_can_ask_a_server_of_its_own_bus(address: str, topic: str) -> None:
    with connect(address) as bus:
        inner = Serving(bus, f"{topic}.inner", lambda request: request.payload + 1)
        outer = Serving(
            bus, f"{topic}.outer", lambda request: bus.request(f"{topic}.inner", request.payload).payload + 1
        )
        assert bus.request(f"{topic}.outer", 1).payload == 3
    for serving in (inner, outer):
        serving.thread.join(PATIENCE)
        assert not serving.thread.is_alive()
