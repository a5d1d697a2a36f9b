"""Counts primes in a multiprocessing pool, whose workers say over the bus how far they are.

    python examples/pool.py spawn [ADDRESS]
    python examples/pool.py fork [ADDRESS]

The two are how processes are started. A bus stays in the process that connected it, and its address goes to others.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from multiprocessing.util import Finalize

import sockbus
from sockbus.blocking import Bus, connect

PROGRESS = "pool.progress"
LIMITS = range(300, 3900, 300)
bus: Bus


def begin(address: sockbus.Address) -> None:
    """In each worker, once: a connection of its own, as long as the worker lives."""
    global bus
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    connecting = connect(address, name=multiprocessing.current_process().name)
    bus = connecting.__enter__()
    Finalize(None, connecting.__exit__, args=(None, None, None), exitpriority=1)  # a worker ends without atexit


def count(limit: int) -> int:  # in a worker, for each job
    primes = sum(all(n % d for d in range(2, n)) for n in range(2, limit))
    bus.publish(PROGRESS, f"{primes} primes are below {limit}")
    return primes


def share(method: str, address: str | None) -> None:
    with connect(address, name="pool") as own, own.subscribe(PROGRESS) as progress:
        where = sockbus.Address.parse(own.address)  # pickled where workers are spawned; a bus refuses that
        with multiprocessing.get_context(method).Pool(3, begin, [where]) as pool:
            counts = pool.map_async(count, LIMITS, chunksize=1)
            for _ in LIMITS:
                message = progress.receive(timeout=60.0)
                print(f"{message.sender.name}: {message.payload}", flush=True)
            print(f"in order: {counts.get()}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    match sys.argv[1:]:
        case ["spawn" | "fork" as method, *rest] if len(rest) < 2:
            try:
                share(method, rest[0] if rest else None)
            except (sockbus.SockbusError, TimeoutError) as error:
                sys.exit(f"pool: {error}")
        case _:
            sys.exit(__doc__)
