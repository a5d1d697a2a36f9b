"""Scenarios of a child that goes on in the event loop of its parent, and of connections of the child's own."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import trio

import sockbus.blocking
from sockbus.client import client
from sockbus.trio import connect as connect_trio
from tests.processes.child import Child, complaint, in_child
from tests.processes.runtimes import plain
from tests.processes.scenario import Place, goes_on, scenario
from tests.processes.using import all_clear, begin, inherited_sockets, is_clear, nobody_answers, sockets, verbs


@scenario()
async def connection_of_the_childs_own(place: Place) -> None:
    """By the address of the inherited bus, while that and its subscription are still entered."""

    async def own() -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            async with place.runtime.connect(bus.address) as mine, mine.subscribe(f"{place.topic}.child") as back:
                await mine.publish(place.topic, "from the child")
                await mine.publish(f"{place.topic}.child", "to itself")
                return {
                    "peer": mine.peer.id,
                    "pid": mine.peer.pid,
                    "self": os.getpid(),
                    "back": (await back.receive()).payload,
                    "inherited": await complaint(bus.publish, place.topic),
                }

        found: dict[str, Any] = await place.runtime.run_anew(main)
        return found

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        await bus.publish(place.topic, "queued")
        await bus.flush()
        child = await in_child(own)
        found = child.end()
        assert is_clear(found["inherited"], os.getpid())
        assert found["peer"] != bus.peer.id
        assert found["pid"] in (found["self"], None)
        assert found["back"] == "to itself"
        await goes_on(bus, messages, place.topic, first=("queued", "from the child"))


@scenario()
async def blocking_connection_in_the_child(place: Place) -> None:
    async def own() -> int:
        with sockbus.blocking.connect(bus.address) as mine:
            mine.publish(place.topic, "from the child")
            return mine.peer.id

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        child = await in_child(own)
        assert child.end() != bus.peer.id
        await goes_on(bus, messages, place.topic, first=("from the child",))


@scenario(runtimes=("trio",))
async def trio_run_of_the_childs_own(place: Place) -> None:
    """Trio runs once in a thread: a child that was forked inside of a run has a thread for another."""

    async def own() -> int:
        peers: list[int] = []

        async def main() -> None:
            async with connect_trio(bus.address) as mine:
                await mine.publish(place.topic, "from the child")
                peers.append(mine.peer.id)

        thread = threading.Thread(target=trio.run, args=(main,))
        thread.start()
        thread.join()
        return peers[0]

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        child = await in_child(own)
        assert child.end() != bus.peer.id
        await goes_on(bus, messages, place.topic, first=("from the child",))


@scenario(runtimes=("trio", "asyncio"))
async def child_that_goes_on_in_the_loop(place: Place) -> None:
    """What comes meanwhile comes to the parent, and in the child the loop is idle."""
    sleep = place.runtime.sleeper()

    async def loop() -> float:
        await sleep(0.01)
        began = time.process_time()
        await sleep(0.3)
        return time.process_time() - began

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        child = await in_child(loop)
        for number in range(200):
            # One by one: each makes the socket readable anew.
            assert (await bus.publish(place.topic, number, receipt=True)).delivered == 1
            await sleep(0.001)
        assert [(await messages.receive()).payload for _ in range(200)] == list(range(200))
        assert child.end() < 0.1
        await goes_on(bus, messages, place.topic)


@scenario(runtimes=("trio", "asyncio"))
async def child_that_unwinds_while_much_is_under_way(place: Place) -> None:
    """Its loop forgets the socket, in both directions, while the parent reads and writes by it."""
    async with place.connect() as taker, taker.subscribe(place.topic, capacity_bytes=1 << 30) as messages:
        child: Any = None
        payloads: list[bytes] = []

        async def blocks() -> None:
            nonlocal child
            async with place.connect() as bus:
                payloads.extend(await begin(bus, place.topic))
                child = Child()
                if child.pid:
                    await bus.publish(place.topic, "behind")
                    await bus.flush()

        said = await complaint(blocks)
        if not child.pid:
            child.say({"leaving": said, **await verbs(taker, messages, place.topic)})
            os._exit(0)
        assert said == "it raised nothing"
        all_clear(child.end())
        await goes_on(taker, messages, place.topic, first=(*payloads, "behind"))


@scenario(runtimes=("trio", "asyncio"), transports=("tcp",))
async def while_another_task_connects(place: Place) -> None:
    """To somebody who does not answer: the child has no copy of that socket either."""

    async def connect() -> None:
        async with place.runtime.connect(address):
            raise AssertionError("it answered")

    async with place.connect() as bus, bus.subscribe(place.topic) as messages, place.runtime.tasks() as start:
        with nobody_answers() as address:
            before = set(sockets())
            start(connect)
            while set(sockets()) == before:
                await bus.request("$SYS.status")
            child = await in_child(inherited_sockets)
            assert len(set(child.end()) & set(sockets()) - before) == 0
            await goes_on(bus, messages, place.topic)
        os._exit(0)


@scenario()
async def parent_leaves_before_the_child_begins(place: Place) -> None:
    """The loop that both have knows nothing of the socket any more when the child lets go of it."""
    ready, go = os.pipe()
    real = client.let_go

    def late() -> None:
        os.read(ready, 1)
        real()

    async with place.connect() as taker, taker.subscribe(place.topic, capacity_bytes=1 << 30) as messages:
        child: Any = None
        payloads: list[bytes] = []

        async def blocks() -> None:
            nonlocal child
            async with place.connect() as bus:
                payloads.extend(await begin(bus, place.topic))
                client.let_go = late  # type: ignore[attr-defined]  # it is imported there
                child = Child()
                if not child.pid:
                    all_clear(found := await verbs(bus, messages, place.topic), child.parent)
                    child.say(found)

        await blocks()
        if not child.pid:
            os._exit(0)
        os.write(go, b"x")
        all_clear(child.end())
        await goes_on(taker, messages, place.topic, first=tuple(payloads))


@scenario(runtimes=("asyncio",))
async def number_of_the_socket_is_another_files(place: Place) -> None:
    """A child that watches a file of its own in the loop, by the number that the bus's socket had, goes on with it."""
    sleep = place.runtime.sleeper()
    loop = asyncio.get_running_loop()
    seen: list[bool] = []

    async def block() -> Any:
        async with place.connect() as bus, bus.subscribe(place.topic) as messages:
            number = plain(bus)._waits.channel.sock.fileno()
            child = Child()
            if child.pid:
                assert child.end() == "seen"
                await goes_on(bus, messages, place.topic)
                return child
            taken = os.eventfd(1)
            if taken != number:
                os.dup2(taken, number)
            loop.add_reader(number, seen.append, True)
            return child

    child = await block()
    if not child.pid:
        await sleep(0.1)
        child.say("seen" if seen else "not seen")
        os._exit(0)


@scenario(runtimes=("trio", "asyncio"))
async def others_wait_at_the_bus(place: Place) -> None:
    """Tasks that wait at the bus when another one forks: in the child they get the error, in the parent an answer."""
    heard: list[str] = []

    async def wait(messages: Any) -> None:
        heard.append(await complaint(messages.receive))

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        sleep = place.runtime.sleeper()
        async with place.runtime.tasks() as start:
            for _ in range(3):
                start(wait, messages)
            await sleep(0.01)
            child = Child()
            if not child.pid:
                while len(heard) < 3:
                    await sleep(0.01)
                child.say(heard)
                os._exit(0)
            reported = child.end()
            assert len(reported) == 3
            assert all(is_clear(text, os.getpid()) for text in reported)
            assert heard == []
            for _ in range(3):
                await bus.publish(place.topic)
        assert heard == ["it raised nothing"] * 3
        await goes_on(bus, messages, place.topic)
