"""Answers requests on the topic text.upper with their text in upper case, until Ctrl-C.

    python examples/uppercase_server.py [ADDRESS]

Start a broker first: sockbus broker [ADDRESS]. ADDRESS is one at which it listens, such as unix:/tmp/mybus or
tcp:127.0.0.1:7000; without it, the default bus. Nothing else changes between UNIX sockets and TCP. Several of these
servers share the load.
"""

from __future__ import annotations

import argparse
import signal
import sys

import trio

import sockbus
from sockbus.trio import connect


def upper(request: sockbus.Message) -> str:
    """The reply; what this raises for a request that is no text becomes the client's RemoteError."""
    return str.upper(request.payload)


async def serve(address: str | None) -> None:
    async with connect(address, name="uppercase-server") as bus, trio.open_nursery() as nursery:
        await nursery.start(bus.serve, "text.upper", upper)
        # Now, and not before, requests find this server.
        print(f"serving text.upper at {bus.address}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve text.upper.")
    parser.add_argument("address", nargs="?")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    failure = None
    try:
        trio.run(serve, arguments.address)
    except* sockbus.SockbusError as errors:
        # What is raised inside a nursery comes out of it in a group.
        failure = f"uppercase_server: {errors.exceptions[0]}"
    sys.exit(failure)
