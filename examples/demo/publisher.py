"""The publisher: opens the files, publishes a job with each, and serves the totals.

python -m examples.demo.publisher ADDRESS FILE...
"""

from __future__ import annotations

import functools
import sys
from dataclasses import asdict
from pathlib import Path

import trio

from sockbus import Message
from sockbus.trio import Bus

from .counts import count, total
from .program import run


async def work(paths: list[str], bus: Bus) -> None:
    """Serve the totals and publish the jobs, in the order of the files."""

    def totals(_: Message) -> dict[str, object]:
        return asdict(total(count(Path(path).read_bytes()) for path in paths))

    async with trio.open_nursery() as nursery:
        await nursery.start(bus.serve, "demo.totals", totals)
        for number, path in enumerate(paths):
            async with await trio.open_file(path, "rb") as file:
                # The descriptor is borrowed: the file may be closed as soon as this returns.
                await bus.publish("demo.job", number, fds=[file.fileno()])
        await bus.publish("demo.report.published", {"jobs": len(paths)})


if __name__ == "__main__":
    run("publisher", sys.argv[1], functools.partial(work, sys.argv[2:]))
