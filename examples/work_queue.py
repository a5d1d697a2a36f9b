"""Shares jobs among processes: each job goes to one of the workers, the one with the least to do.

    python examples/work_queue.py work [ADDRESS]
    python examples/work_queue.py share [ADDRESS]

Start as many workers as you like, then share the jobs out. A worker that is busy is passed over; when all are busy,
sharing waits. It ends with how many jobs each worker did.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import sys

import trio

import sockbus
from sockbus.trio import connect

JOB, DONE = "queue.job", "queue.done"


async def work(address: str | None) -> None:
    # The group makes them share; with room for one, no job waits at one worker while another is free.
    name = f"worker-{os.getpid()}"
    async with connect(address, name=name) as bus, bus.subscribe(JOB, group="workers", capacity=1) as jobs:
        print(f"working at {bus.address}", file=sys.stderr, flush=True)
        async for job in jobs:
            primes = sum(all(n % d for d in range(2, n)) for n in range(2, job.payload))
            await bus.publish(DONE, f"{primes} primes are below {job.payload}")


async def share(address: str | None) -> None:
    done_by: collections.Counter[str | None] = collections.Counter()
    async with connect(address) as bus, bus.subscribe(DONE) as results:
        for number in range(1, 31):
            receipt = await bus.publish(JOB, number * 30, receipt=True)
            if not receipt.matched:
                sys.exit("work_queue: no worker is there; start some with: work_queue.py work")
        for _ in range(1, 31):
            result = await results.receive()
            done_by[result.sender.name] += 1
            print(f"{result.sender.name}: {result.payload}", flush=True)
    print(", ".join(f"{name} did {count}" for name, count in done_by.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Share jobs among processes.")
    parser.add_argument("role", choices=("work", "share"))
    parser.add_argument("address", nargs="?")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    try:
        trio.run(work if arguments.role == "work" else share, arguments.address)
    except sockbus.SockbusError as error:
        sys.exit(f"work_queue: {error}")
