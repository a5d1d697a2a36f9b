"""Counts the lines of these examples in worker processes, which are given the open files over the bus.

    python examples/futures.py [ADDRESS]

What goes into a future is pickled, and an open file cannot be: a worker gets a number, and requests the file by it.
Threads share one bus: one serves the workers, while another waits for what they have counted. ADDRESS as for
examples/uppercase_server.py, but TCP carries no open files.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import sockbus
from sockbus.blocking import connect

OPEN = "futures.open"
FILES = sorted(Path(__file__).parent.glob("*.py"))


def give(request: sockbus.Message) -> sockbus.Reply:
    """In this process: the file of that number, and no other, whatever a worker may open by itself."""
    file = sockbus.Fd(os.open(FILES[request.payload], os.O_RDONLY))  # closes itself once the reply has left
    return sockbus.Reply(fds=[file])


def count(address: sockbus.Address, number: int) -> int:
    """In a worker. What it raises comes back through its future."""
    with connect(address) as bus, bus.request(OPEN, number) as reply, reply.fds[0].open() as file:
        return sum(1 for _ in file)


def share(address: str | None) -> None:
    spawn = multiprocessing.get_context("spawn")  # beside threads nothing should fork
    workers = ProcessPoolExecutor(2, spawn, signal.signal, (signal.SIGINT, signal.SIG_DFL))
    # The bus is left first. That ends what serves, and so its thread.
    with workers, ThreadPoolExecutor(1) as threads, connect(address, name="futures") as bus:
        in_force = threading.Event()
        threads.submit(bus.serve, OPEN, give, task_status=in_force)
        in_force.wait(10.0)
        where = sockbus.Address.parse(bus.address)  # goes to other processes, where a bus cannot
        for file, lines in zip(FILES, workers.map(partial(count, where), range(len(FILES))), strict=True):
            print(f"{file.name}: {lines} lines", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    try:
        share(sys.argv[1] if len(sys.argv) > 1 else None)
    except sockbus.SockbusError as error:
        sys.exit(f"futures: {error}")
