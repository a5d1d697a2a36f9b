"""Scenarios of a fork while other threads use the bus, which the child does not have."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sockbus import ConnectionLost
from sockbus.blocking import connect
from sockbus.client.need import Gate
from tests.processes.child import Child, complaint, in_child
from tests.processes.runtimes import plain
from tests.processes.scenario import Place, goes_on, scenario
from tests.processes.using import all_clear, inherited_sockets, is_clear, nobody_answers, open_files, sockets, verbs

BLOCKING = ("blocking",)
LOOPS = ("trio", "asyncio")


@contextlib.contextmanager
def in_threads(*calls: Callable[[], object]) -> Iterator[None]:
    """Calls in threads of their own, which have ended, well or not, when the block is left."""
    threads = [threading.Thread(target=_make, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def _make(call: Callable[[], object]) -> None:
    with contextlib.suppress(ConnectionLost):
        call()


def waits_of(bus: Any) -> Any:
    return plain(bus)._waits


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@scenario(runtimes=BLOCKING)
async def while_threads_receive(place: Place) -> None:
    """One polls, the others are parked."""
    async with (
        place.connect() as bus,
        bus.subscribe(place.topic) as messages,
        bus.subscribe(f"{place.topic}.unused") as unused,
    ):
        taken: list[object] = []

        def receive() -> None:
            taken.append(plain(messages).receive().payload)

        with in_threads(receive, receive, receive):
            until(lambda: waits_of(bus).polls is not None and len(waits_of(bus)._parked) == 2)
            child = await in_child(lambda: verbs(bus, unused, place.topic))
            all_clear(child.end())
            for number in range(3):
                await bus.publish(place.topic, number)
        assert sorted(taken) == [0, 1, 2]
        await goes_on(bus, messages, place.topic)


@scenario(runtimes=BLOCKING)
async def while_a_thread_requests(place: Place) -> None:
    async with place.connect() as bus, bus.subscribe(place.topic) as messages, place.connect() as other:
        called, answer = threading.Event(), threading.Event()

        def handler(request: Any) -> str:
            called.set()
            answer.wait()
            return "answered"

        def serve() -> None:
            plain(other).serve(f"{place.topic}.call", handler, task_status=in_force)

        in_force = threading.Event()
        server = threading.Thread(target=_make, args=(serve,))
        server.start()
        in_force.wait()
        replies: list[object] = []
        with in_threads(lambda: replies.append(plain(bus).request(f"{place.topic}.call").payload)):
            called.wait()
            child = await in_child(lambda: verbs(bus, messages, place.topic))
            all_clear(child.end())
            answer.set()
        assert replies == ["answered"]
        await goes_on(bus, messages, place.topic)
    server.join()


@scenario(runtimes=BLOCKING)
async def while_a_thread_flushes(place: Place) -> None:
    """The child's flush does not wait for one that only its parent has."""
    async with (
        place.connect() as bus,
        place.connect() as taker,
        taker.subscribe(place.topic, capacity=1) as messages,
        bus.subscribe(f"{place.topic}.unused") as unused,
    ):
        for number in range(3):
            await bus.publish(place.topic, number)
        with in_threads(plain(bus).flush):
            until(lambda: waits_of(bus)._is_flushing and waits_of(bus).polls is not None)
            child = await in_child(lambda: verbs(bus, unused, place.topic))
            all_clear(child.end())
            assert [(await messages.receive()).payload for _ in range(3)] == [0, 1, 2]
        await goes_on(bus, unused, f"{place.topic}.unused")


@scenario(runtimes=BLOCKING)
async def while_a_thread_holds_the_lock(place: Place) -> None:
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with waits_of(bus):
                held.set()
                let_go.wait()

        with in_threads(hold):
            held.wait()
            child = await in_child(lambda: verbs(bus, messages, place.topic))
            all_clear(child.end())
            let_go.set()
        await goes_on(bus, messages, place.topic)


@scenario(runtimes=BLOCKING, transports=("tcp",))
async def while_a_thread_connects(place: Place) -> None:
    """To somebody who does not answer: the child has no copy of that socket either."""
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        with nobody_answers() as address:
            before = set(sockets())
            threading.Thread(target=connect(address).__enter__, daemon=True).start()
            until(lambda: set(sockets()) != before)
            child = await in_child(inherited_sockets)
            assert len(set(child.end()) & set(sockets()) - before) == 0
            await goes_on(bus, messages, place.topic)
        os._exit(0)


@scenario(runtimes=BLOCKING)
async def inside_of_background(place: Place) -> None:
    """The child leaves the block, too."""
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        with plain(bus).background():
            until(lambda: waits_of(bus).polls is not None)
            child = Child()
            if child.pid:
                await goes_on(bus, messages, place.topic)
        if not child.pid:
            child.say(await verbs(bus, messages, place.topic))
            os._exit(0)
        all_clear(child.end())
        await goes_on(bus, messages, place.topic)


@scenario(runtimes=BLOCKING)
async def inside_of_a_batch(place: Place) -> None:
    """What is queued leaves once, from the parent."""
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        with plain(bus).batch():
            for number in range(10):
                await bus.publish(place.topic, number)
            child = Child()
        if not child.pid:
            child.say(await verbs(bus, messages, place.topic))
            os._exit(0)
        all_clear(child.end())
        await goes_on(bus, messages, place.topic, first=tuple(range(10)))


@scenario(runtimes=BLOCKING)
async def forked_by_another_thread(place: Place) -> None:
    """The one that is left in the child is not the one that connected."""
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        children: list[Child] = []

        def fork() -> None:
            child = Child()
            if child.pid:
                children.append(child)
                return
            try:
                place.runtime.run(lambda: _say(child, verbs(bus, messages, place.topic)))
            finally:
                os._exit(0)

        with in_threads(plain(messages).receive):
            until(lambda: waits_of(bus).polls is not None)
            with in_threads(fork):
                pass
            all_clear(children[0].end())
            await bus.publish(place.topic)
        await goes_on(bus, messages, place.topic)


async def _say(child: Child, report: Any) -> None:
    child.say(await report)


@scenario(runtimes=LOOPS)
async def forked_by_a_thread_beside_the_loop(place: Place) -> None:
    """Tasks wait at two buses in a loop that the child does not have; nobody is woken there, and nothing is said."""

    async def wait(messages: Any) -> None:
        assert (await messages.receive()).payload == "woken"

    def fork() -> Child:
        child = Child()
        if child.pid:
            return child
        child.say(sum("socket" in target for target in open_files()))
        os._exit(0)

    async with (
        place.connect() as one,
        place.connect() as two,
        one.subscribe(place.topic) as first,
        two.subscribe(place.topic) as second,
    ):
        sleep = place.runtime.sleeper()
        before = sum("socket" in target for target in open_files())
        async with place.runtime.tasks() as start:
            start(wait, first)
            start(wait, second)
            await sleep(0.01)
            child = await place.runtime.in_thread(fork)
            assert child.end() == before - 2
            await one.publish(place.topic, "woken")
        await goes_on(one, first, place.topic)


@scenario(runtimes=BLOCKING)
async def in_a_signal_handler(place: Place) -> None:
    """In the middle of a call: the child comes back to it, and it raises."""
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:

        def polls() -> bool:
            return waits_of(bus).polls is not None

        def publish() -> None:
            plain(bus).publish(place.topic)

        with forking_signal(polls, then=publish) as children:
            said = await complaint(messages.receive)
            if children and not children[0].pid:
                children[0].say(said)
                os._exit(0)
        assert said == "it raised nothing"
        assert is_clear(children[0].end(), os.getpid())
        await goes_on(bus, messages, place.topic)


@scenario(runtimes=BLOCKING)
async def in_a_signal_handler_on_the_way_to_wait(place: Place) -> None:
    """The call has looked whether the session has ended, and does not wait yet."""
    children: list[Child] = []
    attach = Gate.attach

    def fork_and_attach(gate: Gate, wake: Callable[[], None]) -> None:
        if not children:
            children.append(Child())
        attach(gate, wake)

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        with in_threads(lambda: until(lambda: children) or plain(bus).publish(place.topic)):
            Gate.attach = fork_and_attach  # type: ignore[method-assign]
            said = await complaint(messages.receive)
            if not children[0].pid:
                children[0].say(said)
                os._exit(0)
        assert said == "it raised nothing"
        assert is_clear(children[0].end(), os.getpid())
        await goes_on(bus, messages, place.topic)


@scenario(runtimes=BLOCKING)
async def in_a_signal_handler_behind_another_flush(place: Place) -> None:
    """What the call waits for is a thread that the child does not have."""
    async with (
        place.connect() as bus,
        place.connect() as taker,
        taker.subscribe(place.topic, capacity=1) as messages,
    ):
        for number in range(3):
            await bus.publish(place.topic, number)

        def waits() -> bool:
            return len(waits_of(bus)._flushers.waiting) == 1

        def take() -> None:
            assert [plain(messages).receive().payload for _ in range(3)] == [0, 1, 2]

        with in_threads(plain(bus).flush):
            until(lambda: waits_of(bus)._is_flushing and waits_of(bus).polls is not None)
            with forking_signal(waits, then=take) as children:
                said = await complaint(bus.flush)
                if children and not children[0].pid:
                    children[0].say(said)
                    os._exit(0)
        assert said == "it raised nothing"
        assert is_clear(children[0].end(), os.getpid())
        await bus.flush()


@contextlib.contextmanager
def forking_signal(when: Callable[[], object], then: Callable[[], object]) -> Iterator[list[Child]]:
    """A signal whose handler forks, in the main thread, once that waits; what is done in the parent thereafter."""
    children: list[Child] = []

    def fork(number: int, frame: object) -> None:
        children.append(Child())

    def interrupt() -> None:
        until(when)
        signal.pthread_kill(main, signal.SIGUSR1)
        until(lambda: children)
        then()

    before = signal.signal(signal.SIGUSR1, fork)
    main = threading.get_ident()
    with in_threads(interrupt):
        yield children
    signal.signal(signal.SIGUSR1, before)
