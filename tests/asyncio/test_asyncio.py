"""What only asyncio has: its timeouts, its cancellation, its idle loop, uvloop, and every CPython that is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sockbus import Message, RemoteError, RequestTimeout
from sockbus.asyncio import Bus, connect
from tests.brokers import ROOT, Program, environment
from tests.contract.runtime import PATIENCE
from tests.contract.status import fds_of, first, page, settled, until

MINOR_VERSIONS = range(11, 20)
has_uvloop = importlib.util.find_spec("uvloop") is not None


def in_asyncio(test: Callable[..., Any]) -> Callable[..., None]:
    """The test, run by asyncio."""

    def run(address: str, topic: str) -> None:
        asyncio.run(asyncio.wait_for(test(address, topic), PATIENCE))

    run.__name__ = test.__name__
    return run


async def serve(bus: Bus, topic: str, handler: Callable[[Message], Any]) -> asyncio.Task[None]:
    in_force = asyncio.Event()
    task = asyncio.create_task(bus.serve(topic, handler, task_status=in_force))
    await in_force.wait()
    return task


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@in_asyncio
async def test_timeout_around_any_call_is_only_a_timeout(address: str, topic: str) -> None:
    async def never(_: Message) -> None:
        await asyncio.Event().wait()

    async with connect(address) as bus, connect(address) as taker:
        serving = await serve(taker, topic, never)
        async with bus.subscribe(topic) as messages, taker.subscribe(f"{topic}.full", capacity=1):
            await bus.publish(f"{topic}.full", "takes the credit", receipt=True)
            calls: list[Callable[[], Any]] = [
                messages.receive,
                lambda: anext(messages),
                lambda: anext(messages.batches()),
                lambda: bus.request(topic, timeout=None),
                lambda: bus.publish(f"{topic}.full", receipt=True),
                bus.flush,
                lambda: bus.serve(f"{topic}.other", never),
            ]
            for call in calls:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await call()
                assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # there is one
            with pytest.raises(RequestTimeout):
                async with asyncio.timeout(PATIENCE):
                    await bus.request(topic, timeout=0.02)
            await taker.publish(topic, "still")
            assert (await messages.receive()).payload == "still"
            async with asyncio.timeout(0.02) as limit:
                limit.reschedule(None)
                await bus.request("$SYS.status")
        await ended(serving)


@in_asyncio
async def test_timeout_around_a_block_is_only_a_timeout(address: str, topic: str) -> None:
    before = fds_of(os.getpid())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), connect(address) as bus, bus.subscribe(topic) as messages:
            await messages.receive()
    assert settled(lambda: fds_of(os.getpid()), before) == before


@in_asyncio
async def test_idle_bus_has_no_task_and_no_timer(address: str, topic: str) -> None:
    async with connect(address) as bus, bus.subscribe(topic) as messages:
        tasks = asyncio.all_tasks()
        await bus.publish(topic, "x", receipt=True)
        assert (await messages.receive()).payload == "x"
        loop: Any = asyncio.get_running_loop()
        # The one second in which credit must be back, and then nothing.
        while any(not timer.cancelled() for timer in loop._scheduled if "Waits" in repr(timer)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == tasks


@in_asyncio
async def test_cancelled_error_of_something_that_a_handler_waits_for_is_the_requesters(
    address: str, topic: str
) -> None:
    async def handler(_: Message) -> None:
        task = asyncio.create_task(asyncio.sleep(PATIENCE))
        task.cancel()
        await task

    async with connect(address) as bus:
        serving = await serve(bus, topic, handler)
        for _ in range(2):
            with pytest.raises(RemoteError, match="CancelledError"):
                await bus.request(topic)
        await ended(serving)
        assert serving.cancelled()


class Stop(BaseException):
    """No Exception."""


@in_asyncio
async def test_what_a_handler_raises_that_is_no_exception_comes_out_of_serve(address: str, topic: str) -> None:
    def plain(_: Message) -> None:
        raise Stop

    async def later(_: Message) -> None:
        raise Stop

    async with connect(address) as bus, connect(address) as server:
        for handler in (plain, later):
            serving = await serve(server, topic, handler)
            with pytest.raises(Exception, match="went away"):
                await bus.request(topic)
            with pytest.raises(Stop):
                await serving
            await until(bus, lambda found: first(found, "servers", topic) == {})


@in_asyncio
async def test_handlers_tasks_end_with_serve(address: str, topic: str) -> None:
    ended_handlers = 0
    called = asyncio.Event()

    async def handler(_: Message) -> None:
        nonlocal ended_handlers
        called.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended_handlers += 1

    async with connect(address) as bus, connect(address) as server:
        serving = await serve(server, topic, handler)
        asking = asyncio.create_task(bus.request(topic, timeout=None))
        await called.wait()
        await ended(serving)
        assert ended_handlers == 1
        with pytest.raises(Exception, match=r"stopped serving|went away"):
            await asking
        assert first(await page(bus), "servers", topic) == {}


PROGRAM = """
import asyncio, sys
from sockbus.asyncio import connect

async def main():
    async with connect(sys.argv[1]) as bus, bus.subscribe("t.*", capacity=1 << 20) as messages:
        async def upper(request):
            await asyncio.sleep(0)
            return request.payload.upper()
        in_force = asyncio.Event()
        serving = asyncio.create_task(bus.serve("upper", upper, task_status=in_force))
        await in_force.wait()
        fds = [] if bus.transport == "tcp" else [0]
        for number in range(2000):
            await bus.publish("t.a", [number, b"x" * 100], receipt=number % 500 == 0)
        await bus.publish("t.b", b"y" * 200_000, fds=fds)
        got = [(await messages.receive()).payload[0] for _ in range(2000)]
        assert got == list(range(2000))
        with await messages.receive() as large:
            assert (len(large.payload), len(large.fds)) == (200_000, len(fds))
        replies = await asyncio.gather(*[bus.request("upper", f"n{number}") for number in range(200)])
        assert [reply.payload for reply in replies] == [f"N{number}" for number in range(200)]
        try:
            async with asyncio.timeout(0.02):
                await messages.receive()
        except TimeoutError:
            pass
        await bus.flush()
        serving.cancel()
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

if len(sys.argv) > 2:
    import uvloop
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print("done by", runner.run(main()))
else:
    print("done by", asyncio.run(main()))
"""


@pytest.mark.skipif(not has_uvloop, reason="uvloop is not installed")
def test_uvloop_runs_the_same(address: str) -> None:
    with Program([sys.executable, "-c", PROGRAM, address, "uvloop"]) as program:
        assert program.out.next() == "done by uvloop", program.err.rest().decode()
        assert program.code() == 0


def interpreters() -> list[str]:
    """One of each other CPython from 3.11 up that is on the path, or installed beside this one, and runs."""
    found = []
    for minor in MINOR_VERSIONS:
        name = f"python3.{minor}"
        beside = sorted(Path(sys.base_prefix).parent.glob(f"*/bin/{name}"))
        for path in filter(None, [shutil.which(name), *map(str, beside)]):
            if minor != sys.version_info.minor and not subprocess.call([path, "-c", ""], stderr=subprocess.DEVNULL):
                found.append(path)
                break
    return found


NONE = [pytest.param("", marks=pytest.mark.skip("no other CPython here"))]


@pytest.mark.parametrize("python", interpreters() or NONE)
def test_every_cpython_that_is_installed_runs_the_same(python: str, address: str) -> None:
    """With this one's packages: they are pure Python, or have a form that is."""
    packages = str(Path(__import__("msgpack").__file__).parent.parent)
    env = environment(PYTHONPATH=os.pathsep.join([str(ROOT), packages]), PYTHONDONTWRITEBYTECODE="1")
    with Program([python, "-c", PROGRAM, address], env=env) as program:
        assert program.out.next() == "done by asyncio", program.err.rest().decode()
        assert program.code() == 0


INTERRUPTED = """
import asyncio, sys
from sockbus.asyncio import connect

async def main():
    async with connect(sys.argv[1]) as bus, bus.subscribe("t") as messages:
        print("ready", flush=True)
        await messages.receive()

asyncio.run(main())
"""


def test_interrupt_cancels_the_program_and_leaves_the_bus(address: str) -> None:
    with Program([sys.executable, "-c", INTERRUPTED, address]) as program:
        assert program.out.next() == "ready", program.err.rest().decode()
        program.signal(signal.SIGINT)
        assert program.code() == -signal.SIGINT
        assert program.err.rest().decode().splitlines()[-1] == "KeyboardInterrupt"
