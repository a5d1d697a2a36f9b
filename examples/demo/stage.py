"""The course of the demonstration, as the process that leads it sees it: a TCP peer.

Everything that the others have to report comes to it over the bus in one subscription, in the order in which the
broker got it. Nothing waits for time to pass; ``LIMIT`` only turns what would hang into a failure.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from sockbus import Message, SockbusError
from sockbus.trio import Subscription, connect

from .counts import Counts, count
from .crew import ROOT, Crew
from .program import OVER
from .verdict import Result, Worker, pronounce, verdict

# Seconds; it takes about two.
LIMIT = 30.0
WORKERS = {"worker-1": "seqpacket", "worker-2": "stream", "worker-3": "seqpacket", "worker-4": "stream"}
Say = Callable[[str], None]


def sources() -> list[Path]:
    """The files of sockbus itself."""
    return sorted((ROOT / "sockbus").rglob("*.py"))


async def demonstrate(paths: Sequence[Path], say: Say, limit: float = LIMIT) -> int:
    """Run the demonstration; the exit code. Leaves no process and no file."""
    code = 0

    def stop(reason: str, exit_code: int) -> None:
        nonlocal code
        # What follows from the first reason is not worth telling.
        if not code:
            code = exit_code
            say(f"demo: {reason}")
            course.cancel()

    async def stop_on_signals() -> None:
        async for number in signals:
            stop(f"stopped by {signal.Signals(number).name}", 128 + number)

    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals,
        tempfile.TemporaryDirectory(prefix="sockbus-") as name,
    ):
        async with trio.open_nursery() as nursery:
            course = trio.move_on_after(limit)
            nursery.start_soon(stop_on_signals)
            crew = Crew(nursery, Path(name), lambda reason: stop(reason, 1))
            try:
                with course:
                    code = await _perform(crew, Path(name), paths, say)
            except (SockbusError, OSError) as error:
                stop(str(error), 1)
            finally:
                await crew.end()
            if course.cancelled_caught:
                stop(f"it is not done after {limit:g} s", 1)
            nursery.cancel_scope.cancel()
    return code


async def _perform(crew: Crew, place: Path, paths: Sequence[Path], say: Say) -> int:
    """The main job, from the broker's start to the verdict."""
    say(_line("who", "pid", "transport", "what"))
    broker = await crew.start("broker", "sockbus", "broker", f"unix:{place}/bus", "tcp:127.0.0.1:0")
    unix, tcp = await _listening(broker)
    say(_line("broker", broker.pid, "-", f"listens on {unix} and {tcp}"))
    async with connect(tcp, name="collector") as bus, bus.subscribe("demo.report.*") as reports:
        say(_line("collector", os.getpid(), bus.transport, "waits for reports"))
        for name, transport in WORKERS.items():
            await crew.start(name, "examples.demo.worker", name, f"{transport}:{place}/bus/{transport}")
        for _ in WORKERS:
            say(_told(await reports.receive(), "is ready for jobs"))
        # Not before: what is published while nobody is subscribed goes nowhere.
        await crew.start("publisher", "examples.demo.publisher", unix, *map(str, paths))
        results = await _collect(reports, paths, say)
        answer = await bus.request("demo.totals")
        totals = Counts(**answer.payload)
        say(_told(answer, f"says, when asked for the totals: {totals}"))
        await bus.publish(OVER)
        await crew.dismiss("publisher", *WORKERS)
        # All that they published is at the broker, and so before this: a result too many would be seen.
        await bus.publish("demo.report.end")
        async for report in reports:
            if report.topic == "demo.report.end":
                break
            results.append(_result(report))
        say(_line("collector", os.getpid(), bus.transport, f"has {len(results)} results, and reads the files itself"))
    expected = [count(path.read_bytes()) for path in paths]
    return pronounce(verdict(expected, results, totals), say)


async def _listening(broker: trio.Process) -> list[str]:
    """The two addresses that a broker prints once they accept connections."""
    assert broker.stdout is not None
    said = b""
    while said.count(b"\n") < 2:
        came = await broker.stdout.receive_some()
        if not came:
            # It has ended, and whoever watches it says why.
            await trio.sleep_forever()
        said += came
    return [line.removeprefix("listening on ") for line in said.decode().splitlines()]


async def _collect(reports: Subscription, paths: Sequence[Path], say: Say) -> list[Result]:
    """As many results as there are jobs, once all jobs are published."""
    results: list[Result] = []
    published = False
    while not published or len(results) < len(paths):
        report = await reports.receive()
        if report.topic == "demo.report.published":
            published = True
            say(_told(report, f"has published {report.payload['jobs']} jobs, each with its open file"))
        else:
            results.append(_result(report))
            say(_told(report, _done(results[-1], report.payload["fd"], paths)))
    return results


def _result(report: Message) -> Result:
    said: dict[str, Any] = report.payload
    sender = report.sender
    return Result(
        said["job"],
        Counts(said["lines"], said["bytes"], said["sha256"]),
        Worker(said["worker"], said["transport"], said["pid"]),
        Worker(sender.name, sender.transport, sender.pid),
    )


def _done(result: Result, fd: int, paths: Sequence[Path]) -> str:
    # A number that was never given out is for the verdict to judge.
    path = paths[result.job] if result.job in range(len(paths)) else None
    name = path.relative_to(ROOT) if path is not None and path.is_relative_to(ROOT) else path
    return f"job {result.job}, {name}, through fd {fd}: {result.counts}"


def _told(message: Message, what: str) -> str:
    """A line about the sender of a message, who is whom the broker says."""
    sender = message.sender
    return _line(sender.name, sender.pid, sender.transport, what)


def _line(who: str | None, pid: int | str | None, transport: str, what: str) -> str:
    return f"{who:<10} {pid:>7}  {transport:<9}  {what}"
