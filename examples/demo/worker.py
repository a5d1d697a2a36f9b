"""A worker: reads the open files that come with the jobs, and publishes what it counted.

    python -m examples.demo.worker NAME ADDRESS

A job is a number; where the file is, this process is not told.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import asdict

from sockbus.trio import Bus

from .counts import count
from .program import run


async def work(name: str, bus: Bus) -> None:
    """Say that this worker is ready, then take jobs."""
    me = {"worker": name, "transport": bus.transport, "pid": os.getpid()}
    # A member of the group with nothing to do goes first; with room for one job, none waits at a busy worker.
    async with bus.subscribe("demo.job", group="workers", capacity=1) as jobs:
        await bus.publish("demo.report.ready", me)
        async for job in jobs:
            fd = job.fds[0]
            number = fd.fileno()
            with fd.open() as file:
                found = count(file.read())
            await bus.publish("demo.report.result", {**me, "job": job.payload, "fd": number, **asdict(found)})


if __name__ == "__main__":
    name, address = sys.argv[1:]
    run(name, address, functools.partial(work, name))
