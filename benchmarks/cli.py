"""``sockbus pub`` from its start to its end, beside a program that publishes the same in a runtime.

The command line is loaded anew each time, and most of what a user waits for is that. The reference loads no command
line at all; ``--runtimes`` says what it runs in. A turn is one run, or as many as ``--messages`` says.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from .process import PATIENCE, BenchmarkError, Crew
from .report import Floor, Table
from .rounds import Effort, Run, Sample, compare

__all__ = ["CASES", "measure", "running"]

CASES = ("pub",)
_FLOORS = {"trio": Floor(0.5, at_most=True)}
_EVENT_LOOP = """
import sys, {module}
from sockbus.{module} import connect
async def main():
    async with connect(sys.argv[1]) as bus:
        await bus.publish("benchmark.cli", "payload")
{run}
"""
_PROGRAMS = {
    "trio": _EVENT_LOOP.format(module="trio", run="trio.run(main)"),
    "asyncio": _EVENT_LOOP.format(module="asyncio", run="asyncio.run(main())"),
    "uvloop": _EVENT_LOOP.format(module="asyncio", run="import uvloop; uvloop.run(main())"),
    "blocking": """
import sys
from sockbus.blocking import connect
with connect(sys.argv[1]) as bus:
    bus.publish("benchmark.cli", "payload")
""",
}


def measure(transports: Sequence[str], cases: Sequence[str], runtimes: Sequence[str], effort: Effort) -> None:
    """Print the table."""
    effort = replace(effort, messages=effort.messages or 1)
    table = Table(
        "cli: sockbus pub, from start to end; reference: a program that publishes the same in that runtime",
        "ms",
        (),
        effort,
    )
    for transport in transports:
        with Crew() as crew:
            _, address = crew.broker(transport)
            command = [sys.executable, "-m", "sockbus", "pub", "--address", address, "benchmark.cli", "payload"]
            for runtime in runtimes:
                program = [sys.executable, "-c", _PROGRAMS[runtime], address]
                for name in cases:
                    found = compare(running(command), running(program), effort)
                    table.row(transport, name, runtime, found, _FLOORS.get(runtime) if transport != "tcp" else None)


def running(command: Sequence[str]) -> Run:
    """Turns of running it ``count`` times, the median in milliseconds; BenchmarkError when it fails."""
    # As after an installation: what is loaded is compiled already, or is from the second time on.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(count: int) -> Sample:
        took = [_seconds(command, environ) for _ in range(count)]
        return Sample(sum(took), statistics.median(took) * 1e3, ())

    run(1)
    return run


def _seconds(command: Sequence[str], environ: dict[str, str]) -> float:
    began = time.perf_counter()
    try:
        done = subprocess.run(command, env=environ, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"a program did not end within {PATIENCE:g} s: {command[-1]}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing on stderr"]
        raise BenchmarkError(f"a program ended with exit code {done.returncode}: {said[-1]}")
    return time.perf_counter() - began
