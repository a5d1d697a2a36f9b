"""Prints the lines of standard input in upper case: examples/uppercase_server.py does the work.

    python examples/uppercase_client.py [ADDRESS]

ADDRESS as for the server. The two need not come in by the same one: a client at the broker's TCP address is served
by a server at its UNIX address.
"""

from __future__ import annotations

import argparse
import signal
import sys

import trio

import sockbus
from sockbus.trio import connect


async def ask(address: str | None) -> None:
    async with connect(address, name="uppercase-client") as bus:
        async for line in trio.wrap_file(sys.stdin):
            reply = await bus.request("text.upper", line.removesuffix("\n"))
            print(reply.payload, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Send lines to text.upper.")
    parser.add_argument("address", nargs="?")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    try:
        trio.run(ask, arguments.address)
    except sockbus.SockbusError as error:
        sys.exit(f"uppercase_client: {error}")
