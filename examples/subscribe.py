"""Prints the messages of a pattern, with who sent them, until Ctrl-C.

    python examples/subscribe.py PATTERN [ADDRESS]
    python examples/subscribe.py 'sensors.*.temp' unix:/tmp/mybus

In a pattern * is one word between dots, and > at the end is one or more.
"""

from __future__ import annotations

import argparse
import signal
import sys

import trio

import sockbus
from sockbus.trio import connect


async def subscribe(pattern: str, address: str | None) -> None:
    async with connect(address, name="subscriber") as bus, bus.subscribe(pattern) as messages:
        # In force: whatever is published from here on is seen.
        print(f"subscribed to {pattern} at {bus.address}", file=sys.stderr, flush=True)
        async for message in messages:
            if message.lost:
                print(f"{message.lost} messages were lost here", flush=True)
            sender = message.sender  # as the broker knows it; nobody can claim to be another
            who = f"{sender.name or 'peer'} {sender.id} ({sender.transport}, pid {sender.pid})"
            print(f"{message.topic}: {message.payload} from {who}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the messages of a pattern.")
    parser.add_argument("pattern")
    parser.add_argument("address", nargs="?")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    try:
        trio.run(subscribe, arguments.pattern, arguments.address)
    except sockbus.SockbusError as error:
        sys.exit(f"subscribe: {error}")
