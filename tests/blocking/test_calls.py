"""What a blocking bus has that no other needs: timeouts everywhere, batches, a background, and no busy waiting."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sockbus import ConnectError, ConnectionLost, Message, NoResponders, RemoteError, RequestTimeout
from sockbus.blocking import Bus, connect
from tests.brokers import ROOT, BrokerProcess, Program
from tests.contract.runtime import PATIENCE
from tests.contract.short import short_directory

SHORT = 0.05


def status(bus: Bus) -> dict[str, Any]:
    found: dict[str, Any] = bus.request("$SYS.status", timeout=PATIENCE).payload
    return found


def until(bus: Bus, condition: Callable[[dict[str, Any]], bool]) -> None:
    while not condition(status(bus)):
        pass


def row(found: dict[str, Any], pattern: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = found["subscriptions"]
    return next(row for row in rows if row["pattern"] == pattern)


def test_importing_it_loads_neither_trio_nor_asyncio() -> None:
    program = "import sys, sockbus.blocking; print(sorted({'trio', 'asyncio'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")


# Timeouts


@pytest.fixture
def stopped(address: str, topic: str) -> Iterator[Bus]:
    """A bus whose window is spent on a subscriber that does not read."""
    with connect(address) as taker, taker.subscribe(topic, capacity=1, stall=1e9):
        publisher = connect(address)
        bus = publisher.__enter__()
        with contextlib.suppress(TimeoutError):
            while True:
                bus.publish(topic, b"x" * 10_000, timeout=SHORT)
        yield bus
    publisher.__exit__(None, None, None)


@pytest.mark.parametrize("size", [10, 100_000])
def test_publish_without_room_in_time_was_not_sent(stopped: Bus, topic: str, size: int) -> None:
    sentence = f"no room for the message on '{topic}' within 0.05 s, and it was not sent; does a subscriber not read"
    for options in ({}, {"headers": {"h": 1}}, {"receipt": True}):
        with pytest.raises(TimeoutError, match=sentence):
            stopped.publish(topic, b"y" * size, timeout=SHORT, **options)
    with pytest.raises(TimeoutError, match=r"not taken over everything published within 0\.05 s"):
        stopped.flush(timeout=SHORT)


def test_receipt_that_does_not_come_in_time_is_said_to_be_of_a_message_that_was_sent(address: str, topic: str) -> None:
    with connect(address) as taker, taker.subscribe(topic, capacity=1, stall=1e9) as messages, connect(address) as bus:
        bus.publish(topic, 0)
        with pytest.raises(TimeoutError, match=rf"no receipt for the message on '{topic}' .* though it was sent"):
            bus.publish(topic, 1, receipt=True, timeout=SHORT)
        assert [messages.receive(timeout=PATIENCE).payload for _ in range(2)] == [0, 1]


def test_taking_ends_with_the_time_and_goes_on_after_it(address: str, topic: str) -> None:
    with connect(address) as bus, bus.subscribe(topic) as messages:
        for take in (lambda: messages.receive(timeout=SHORT), lambda: next(messages.batches(timeout=SHORT))):
            with pytest.raises(TimeoutError, match=rf"no message came on '{topic}' within 0\.05 s"):
                take()
        with connect(address) as other:
            for number in range(3):
                other.publish(topic, number, receipt=True)
            # No time at all is enough for what is there, and costs nothing where nothing is.
            assert [take_at_once(messages) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(TimeoutError):
                messages.receive(timeout=0.0)


def take_at_once(messages: Any) -> Any:
    """What is on its way on a TCP link may take a moment."""
    while True:
        with contextlib.suppress(TimeoutError):
            return messages.receive(timeout=0.0).payload


def test_request_ends_with_the_time(address: str, topic: str) -> None:
    with connect(address) as bus, served(bus, topic, lambda _: release.wait(PATIENCE)):
        release = threading.Event()
        with pytest.raises(RequestTimeout, match=rf"'{topic}' within 0\.05 s"):
            bus.request(topic, timeout=SHORT)
        release.set()
        assert bus.request(topic).payload is True


@contextlib.contextmanager
def served(bus: Bus, pattern: str, handler: Callable[[Message], Any]) -> Iterator[None]:
    with connect(bus.address) as server:
        in_force = threading.Event()
        thread = threading.Thread(target=server.serve, args=(pattern, handler), kwargs={"task_status": in_force})
        thread.start()
        assert in_force.wait(PATIENCE)
        yield
    thread.join(PATIENCE)


def test_serving_ends_with_the_time_and_with_its_bus(address: str, topic: str) -> None:
    with connect(address) as bus, connect(address) as other:
        bus.serve(topic, lambda request: request.payload, timeout=SHORT)
        until(other, lambda found: all(server["pattern"] != topic for server in found["servers"]))
        with pytest.raises(NoResponders):
            other.request(topic)


def test_connecting_ends_with_the_time(transport: str) -> None:
    with (
        silent(transport) as address,
        pytest.raises(ConnectError, match=r"did not answer within 0\.05 s; is it stopped"),
    ):
        connect(address, timeout=SHORT).__enter__()


@contextlib.contextmanager
def silent(transport: str) -> Iterator[str]:
    """The address of a listener that never accepts."""
    if transport == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        return
    kind = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}[transport]
    with short_directory() as directory, socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(f"{directory}/socket")
        listener.listen(1)
        yield f"{transport}:{directory}/socket"


def test_entering_a_subscription_ends_with_the_time(transport: str, topic: str) -> None:
    with BrokerProcess() as broker, connect(broker.address(transport)) as bus:
        os.kill(broker.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError, match=rf"subscription to '{topic}' within 0\.05 s; is it stopped\?"):
            bus.subscribe(topic, timeout=SHORT).__enter__()
        os.kill(broker.pid, signal.SIGCONT)
        bus.publish(topic, "goes on", receipt=True)


# Sending


def test_publish_has_sent_when_it_returns(address: str, topic: str) -> None:
    """No later call of the publisher's is needed, also for more than a socket takes at once."""
    with connect(address) as taker, taker.subscribe(topic) as messages, connect(address) as bus:
        for size in (10, 3 << 20):
            bus.publish(topic, b"x" * size)
            assert len(messages.receive(timeout=PATIENCE).payload) == size


def test_batch_leaves_at_its_end_and_only_its_threads(address: str, topic: str) -> None:
    with connect(address) as taker, taker.subscribe(topic) as messages, connect(address) as bus:
        with bus.batch():
            bus.publish(topic, 1)
            with bus.batch():
                bus.publish(topic, 2)
            bus.publish(topic, 3)
            with pytest.raises(TimeoutError):
                messages.receive(timeout=SHORT)
            other = threading.Thread(target=bus.publish, args=(topic, "of another thread"))
            other.start()
            other.join()
            assert messages.receive(timeout=PATIENCE).payload == "of another thread"
        assert [messages.receive(timeout=PATIENCE).payload for _ in range(3)] == [1, 2, 3]
        bus.publish(topic, 4)
        assert messages.receive(timeout=PATIENCE).payload == 4


def test_nothing_passes_what_its_thread_has_published_in_a_batch(address: str, topic: str) -> None:
    kinds: list[dict[str, Any]] = [{"receipt": True}, {"headers": {"h": 1}}, {}]
    with connect(address) as taker, taker.subscribe(topic) as messages, connect(address) as bus, bus.batch():
        for number, options in enumerate(kinds):
            bus.publish(topic, [number, "small"])
            bus.publish(topic, [number, "x" * 100_000], **options)
        bus.publish(topic, "before a flush")
        bus.flush(timeout=PATIENCE)
        came = [messages.receive(timeout=PATIENCE).payload for _ in range(7)]
        assert [payload[0] for payload in came[:6]] == [0, 0, 1, 1, 2, 2]
        assert [len(payload[1]) for payload in came[:6]] == [5, 100_000] * 3
        assert came[6] == "before a flush"
        bus.publish(topic, "before a request")
        bus.request("$SYS.status", timeout=PATIENCE)
        assert messages.receive(timeout=PATIENCE).payload == "before a request"
        bus.publish(topic, "before a subscription")
        with bus.subscribe(topic) as own:
            bus.publish(topic, "after it")
            # It waits for what this thread has not sent yet.
            assert own.receive(timeout=PATIENCE).payload == "after it"


def test_batch_without_room_in_time_keeps_what_was_published(address: str, topic: str) -> None:
    count = 0
    with connect(address) as taker, taker.subscribe(topic, capacity=1, stall=1e9) as messages, connect(address) as bus:
        with bus.batch():
            with pytest.raises(TimeoutError, match="and it was not sent; does a subscriber not read"):
                while True:
                    bus.publish(topic, [count, b"x" * 1000], timeout=SHORT)
                    count += 1
            taking = threading.Thread(target=lambda: came.extend(take_numbers(messages, count)))
            came: list[int] = []
            taking.start()
        taking.join(PATIENCE)
    assert came == list(range(count))


def take_numbers(messages: Any, count: int) -> list[int]:
    return [messages.receive(timeout=PATIENCE).payload[0] for _ in range(count)]


def test_batch_of_more_than_the_window_makes_its_own_room(address: str, topic: str) -> None:
    count = 40_000
    with connect(address) as taker, taker.subscribe(topic, capacity=1 << 20, capacity_bytes=1 << 30) as messages:
        with connect(address) as bus, bus.batch():
            for number in range(count):
                bus.publish(topic, [number, b"x" * 100])
        assert [messages.receive(timeout=PATIENCE).payload[0] for _ in range(count)] == list(range(count))


def test_batch_that_is_left_by_an_exception_has_published_what_it_published(address: str, topic: str) -> None:
    with connect(address) as taker, taker.subscribe(topic) as messages, connect(address) as bus:
        with pytest.raises(ZeroDivisionError), bus.batch():
            bus.publish(topic, "before")
            raise ZeroDivisionError
        assert messages.receive(timeout=PATIENCE).payload == "before"


def test_publisher_that_never_waits_hears_that_the_broker_has_gone(transport: str, topic: str) -> None:
    with (
        BrokerProcess() as broker,
        pytest.raises(ConnectionLost),
        connect(broker.address(transport), reconnect=None) as bus,
    ):
        bus.publish(topic, "x", receipt=True)
        broker.kill()
        while True:
            bus.publish(topic, "x")


# Reading in whatever call is running


def test_credit_goes_back_in_calls_that_do_not_wait(address: str, topic: str) -> None:
    """A consumer that takes what is there and publishes, and never waits: within a second or so, by its own calls."""
    with connect(address) as other, connect(address) as bus, bus.subscribe(topic, capacity=10) as messages:
        for number in range(10):
            other.publish(topic, number, receipt=True)
        assert [messages.receive().payload for _ in range(3)] == [0, 1, 2]
        while row(status(other), topic)["outstanding"] != 7:
            bus.publish(f"{topic}.other")


def test_credit_goes_back_while_a_batch_fills_slowly(address: str, topic: str) -> None:
    with connect(address) as other, connect(address) as bus, bus.subscribe(topic, capacity=10) as messages:
        for number in range(10):
            other.publish(topic, number, receipt=True)
        assert [messages.receive().payload for _ in range(3)] == [0, 1, 2]
        with bus.batch():
            while row(status(other), topic)["outstanding"] != 7:
                bus.publish(f"{topic}.other")


def test_background_gives_credit_back_and_takes_calls_while_the_program_computes(address: str, topic: str) -> None:
    with connect(address) as other, connect(address) as bus, bus.subscribe(topic, capacity=10) as messages:
        for number in range(10):
            other.publish(topic, number, receipt=True)
        assert [messages.receive().payload for _ in range(3)] == [0, 1, 2]
        with bus.background():
            # This thread makes no call of ``bus``.
            until(other, lambda found: row(found, topic)["outstanding"] == 7)
            assert bus.request("$SYS.status", timeout=PATIENCE).payload
            bus.publish(topic, "in it", receipt=True)
        assert [messages.receive().payload for _ in range(8)] == [*range(3, 10), "in it"]


def test_background_of_a_bus_that_was_left_has_ended(address: str) -> None:
    with connect(address) as bus:
        background = bus.background()
        background.__enter__()
    background.__exit__(None, None, None)
    with pytest.raises(ConnectionLost):
        bus.background().__enter__()


def test_credit_of_a_thread_that_computes_goes_back_while_another_waits(address: str, topic: str) -> None:
    with connect(address) as other, connect(address) as bus, bus.subscribe(topic, capacity=10) as messages:
        quiet = bus.subscribe(f"{topic}.quiet")
        quiet.__enter__()
        waiting = threading.Thread(target=quiet.receive)
        waiting.start()
        for number in range(10):
            other.publish(topic, number, receipt=True)
        assert [messages.receive().payload for _ in range(3)] == [0, 1, 2]
        until(other, lambda found: row(found, topic)["outstanding"] == 7)
        other.publish(f"{topic}.quiet", receipt=True)
        waiting.join(PATIENCE)


def test_waiting_costs_no_processor_time(address: str, topic: str) -> None:
    """Threads that wait sleep: one for the socket, the others for that one."""
    with connect(address) as bus, bus.subscribe(topic) as messages, bus.background():
        (reader,) = [thread for thread in threading.enumerate() if thread.name == "sockbus-background"]
        before = times_slept(reader)
        with ThreadPoolExecutor(4) as pool:
            counts = list(pool.map(wait_in_vain, [messages] * 4))
        counts.append(times_slept(reader) - before)
    # Each second of polling once a millisecond would be 1,000 of them.
    assert sum(counts) < 200


def wait_in_vain(messages: Any) -> int:
    """How often this thread went to sleep meanwhile."""
    before = times_slept(threading.current_thread())
    with pytest.raises(TimeoutError):
        messages.receive(timeout=1.0)
    return times_slept(threading.current_thread()) - before


def times_slept(thread: threading.Thread) -> int:
    """How often a thread gave the processor away (proc(5)): of others in this process nothing is counted."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


# Misuse


def test_async_handler_is_refused_with_where_to_serve_it(address: str, topic: str) -> None:
    async def handler(_: Message) -> None: ...

    with connect(address) as bus:
        with pytest.raises(TypeError, match=r"is async; serve it with sockbus\.asyncio or sockbus\.trio"):
            bus.serve(topic, handler)
        bus.flush()


def test_awaitable_that_a_handler_returns_is_the_requesters_to_know(address: str, topic: str) -> None:
    async def later() -> None: ...

    with connect(address) as bus, served(bus, topic, lambda _: later()):
        sentence = "TypeError: the handler returned an awaitable, and nobody awaits here"
        for _ in range(2):
            with pytest.raises(RemoteError, match=sentence):
                bus.request(topic)


class Finalized:
    """Publishes when it is encoded, as a finalizer or a signal handler might in the middle of a call."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    def fileno(self) -> int:
        self.bus.publish("reentered")
        return 0


def test_call_in_the_middle_of_a_call_of_the_same_thread_is_refused(address: str) -> None:
    with connect(address) as bus:
        if bus.transport == "tcp":
            return
        with pytest.raises(RuntimeError, match="in the middle of a call of the same thread"):
            bus.publish("a", fds=[Finalized(bus)])
        bus.publish("a", receipt=True)


# Ctrl-C, as it comes from outside

LOOP = """
import os, sys
from sockbus.blocking import connect
from sockbus.fd import closing_settled

def descriptors():
    assert closing_settled(10)
    return len(os.listdir("/proc/self/fd"))

with connect(sys.argv[1]) as bus, bus.subscribe(sys.argv[2]) as messages:
    before, last, interrupts = descriptors(), -1, 0
    print("ready", flush=True)
    while True:
        try:
            for message in messages:
                last, number = message.payload, last
                assert last > number, (number, last)
                if last == 1 << 30:
                    break
                if last % 20 == 0:
                    print(last, flush=True)
            break
        except KeyboardInterrupt:
            interrupts += 1
    message.close()
    del message
    print("interrupts", interrupts, "left", descriptors() - before, "lost", messages.lost, flush=True)
"""


@pytest.mark.parametrize("transport", ["seqpacket", "stream"], indirect=True)
def test_interrupts_from_outside_leak_no_descriptor_that_is_on_its_way(address: str, topic: str) -> None:
    with (
        connect(address) as bus,
        Program([sys.executable, "-c", LOOP, address, topic]) as program,
        open(os.devnull, "rb") as file,
    ):
        assert program.out.next() == "ready", program.err.rest().decode()
        stop = threading.Event()

        def publish() -> None:
            number = 0
            while not stop.is_set():
                bus.publish(topic, number, fds=[file] * 3)
                number += 1

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for _ in range(150):
                assert program.out.next(), program.err.rest().decode()
                program.signal(signal.SIGINT)
        finally:
            stop.set()
            publisher.join(PATIENCE)
        bus.publish(topic, 1 << 30, receipt=True)
        while not (line := program.out.next()).startswith("interrupts"):
            assert line, program.err.rest().decode()
        words = line.split()
        assert int(words[1]) > 50
        assert words[2:] == ["left", "0", "lost", "0"]
        assert program.code() == 0


SERVER = """
import sys
from sockbus.blocking import connect

class Announcement:
    def started(self):
        print("serving", flush=True)

def handler(request):
    print("called", flush=True)
    while True:
        pass

with connect(sys.argv[1]) as bus:
    bus.serve(sys.argv[2], handler if sys.argv[3] == "busy" else print, task_status=Announcement())
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_interrupt_ends_a_server_that_waits_and_a_handler_that_computes(address: str, topic: str, state: str) -> None:
    with connect(address) as bus, Program([sys.executable, "-c", SERVER, address, topic, state]) as program:
        assert program.out.next() == "serving", program.err.rest().decode()
        asking = threading.Thread(target=ask, args=(bus, topic))
        if state == "busy":
            asking.start()
            assert program.out.next() == "called"
        program.signal(signal.SIGINT)
        assert program.code() == -signal.SIGINT
        assert program.err.rest().decode().splitlines()[-1] == "KeyboardInterrupt"
        if state == "busy":
            asking.join(PATIENCE)


def ask(bus: Bus, topic: str) -> None:
    with contextlib.suppress(Exception):
        bus.request(topic, timeout=PATIENCE)


HANDLERS = """
import signal, sys
from sockbus.blocking import connect

def mine(*_):
    pass

before = signal.getsignal(signal.SIGINT)
assert before is signal.default_int_handler
with connect(sys.argv[1]):
    assert signal.getsignal(signal.SIGINT) is not before
    with connect(sys.argv[1]):
        pass
    assert signal.getsignal(signal.SIGINT) is not before
assert signal.getsignal(signal.SIGINT) is before
with connect(sys.argv[1]):
    signal.signal(signal.SIGINT, mine)
assert signal.getsignal(signal.SIGINT) is mine
with connect(sys.argv[1]):
    assert signal.getsignal(signal.SIGINT) is mine
print("done")
"""


def test_handler_of_the_programs_own_is_left_alone(address: str) -> None:
    with Program([sys.executable, "-c", HANDLERS, address]) as program:
        assert program.out.next() == "done", program.err.rest().decode()


def test_interrupt_that_is_sent_while_the_program_does_something_else_comes_at_once(address: str) -> None:
    source = (
        "import sys, time\nfrom sockbus.blocking import connect\n"
        "with connect(sys.argv[1]):\n    print('ready', flush=True)\n    time.sleep(1000)\n"
    )
    with Program([sys.executable, "-c", source, address]) as program:
        assert program.out.next() == "ready"
        started = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.code() == -signal.SIGINT
        assert time.monotonic() - started < PATIENCE
