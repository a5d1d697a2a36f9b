"""Scenarios of how a child ends, and of a parent that ends first."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from sockbus import ConnectionLost
from sockbus.blocking import connect
from tests.processes.child import Child, complaint
from tests.processes.runtimes import plain
from tests.processes.scenario import Place, goes_on, scenario
from tests.processes.using import is_clear


class Unusual(Exception):
    """What a program raises."""


def die() -> None:
    os._exit(3)


def leave() -> None:
    sys.exit(3)


def fail() -> None:
    raise Unusual


async def ends(place: Place, how: Callable[[], None], code: int) -> None:
    """In the middle of two buses' blocks the child ends, and the parent's connections go on."""
    raised: Unusual | None = None
    try:
        async with place.connect() as other, place.connect() as bus, bus.subscribe(place.topic) as messages:
            await bus.publish(place.topic, "queued")
            await other.publish(f"{place.topic}.other")
            child = Child()
            if not child.pid:
                child.end_silently()
                how()
            await bus.publish(place.topic, "while it ends")
            assert child.report() is None
            assert child.wait() == code
            await goes_on(bus, messages, place.topic, first=("queued", "while it ends"))
            await other.flush()
    except Unusual as error:
        raised = error
    if raised is not None:
        # Nothing was added to it.
        assert not hasattr(raised, "__notes__"), raised.__notes__
        sys.exit(code)


@scenario()
async def exit_at_once(place: Place) -> None:
    await ends(place, die, 3)


@scenario()
async def exit_through_the_blocks(place: Place) -> None:
    await ends(place, leave, 3)


@scenario()
async def exception_through_the_blocks(place: Place) -> None:
    await ends(place, fail, 4)


@scenario()
async def killed(place: Place) -> None:
    await ends(place, lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL)


@scenario()
async def dropped(place: Place) -> None:
    """A child that lets the garbage collector have the bus."""
    connecting = place.connect()
    bus = await connecting.__aenter__()
    subscribing = bus.subscribe(place.topic)
    messages = await subscribing.__aenter__()
    await bus.publish(place.topic, "queued")
    child = Child()
    if not child.pid:
        # The loop's tasks hold a bus of theirs until they end.
        del connecting, bus, subscribing, messages
        gc.collect()
        child.say("dropped")
        os._exit(0)
    assert child.end() == "dropped"
    await goes_on(bus, messages, place.topic, first=("queued",))
    await subscribing.__aexit__(None, None, None)
    await connecting.__aexit__(None, None, None)


@scenario()
async def child_of_multiprocessing(place: Place) -> None:
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        await bus.publish(place.topic, "queued")
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=use, args=(place, bus, theirs))
        process.start()
        theirs.close()
        assert is_clear(ours.recv(), os.getpid())
        process.join()
        assert process.exitcode == 0
        ours.close()
        await goes_on(bus, messages, place.topic, first=("queued",))


def use(place: Place, bus: Any, pipe: Any) -> None:
    """What a child of multiprocessing does: it is no coroutine, and ends when it returns."""
    try:
        steps = plain(bus).publish(place.topic, "from the child")
        steps.send(None)
    except ConnectionLost as error:
        pipe.send(str(error))


@scenario()
def parent_ends_first(place: Place) -> None:
    """The broker sees the end of the parent at once, although a child of it lives."""
    name = f"doomed-{place.topic}"
    doomed = Child()
    if not doomed.pid:
        place.runtime.run(lambda: be_doomed(place, name, doomed))
    grandchild = doomed.report()
    with connect(place.address) as bus:
        assert name in names(bus)
        os.kill(doomed.pid, signal.SIGKILL)
        assert doomed.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 5.0
        while name in names(bus):
            assert time.monotonic() < deadline, "the broker does not know of it"
    # It is alive.
    os.kill(grandchild, signal.SIGKILL)


async def be_doomed(place: Place, name: str, doomed: Child) -> None:
    async with place.connect(name=name) as bus, bus.subscribe(place.topic):
        grandchild = os.fork()
        if grandchild:
            doomed.say(grandchild)
        else:
            doomed.end_silently()
        while True:
            signal.pause()


def names(bus: Any) -> list[str | None]:
    return [peer["name"] for peer in bus.request("$SYS.status").payload["peers"]]


@scenario()
async def clean_up_in_the_child(place: Place) -> None:
    """What a child's block cleans up with the bus meets a clear error, and the block ends with the child's own."""

    async def block() -> None:
        async with place.connect() as bus, bus.subscribe(place.topic) as messages:
            child = Child()
            if not child.pid:
                try:
                    raise Unusual
                finally:
                    child.say(await complaint(bus.publish, place.topic, "clean-up"))
            assert is_clear(child.report(), os.getpid())
            assert child.wait() == 4
            await goes_on(bus, messages, place.topic)

    try:
        await block()
    except Unusual:
        sys.exit(4)
