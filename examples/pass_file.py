"""Passes an open file from one process to another, which never learns its path and needs no right to open it.

    python examples/pass_file.py receive [ADDRESS]
    python examples/pass_file.py send FILE [ADDRESS]

The receiver writes what it reads from the file to standard output. TCP carries messages, but no open files.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from typing import IO

import trio

import sockbus
from sockbus.trio import connect


async def send(file: IO[bytes], address: str | None) -> None:
    async with connect(address, name="sender") as bus:
        # Borrowed: it may be closed as soon as this returns.
        print(await bus.publish("file.opened", fds=[file], receipt=True))


async def receive(address: str | None) -> None:
    async with connect(address, name="receiver") as bus, bus.subscribe("file.opened") as files:
        print(f"waiting for a file at {bus.address}", file=sys.stderr, flush=True)
        message = await files.receive()
        # Owned: open() hands the descriptor on to the file object, which closes it. The position in the file is
        # not owned: all who hold the same open file share it.
        with message.fds[0].open() as file:
            shutil.copyfileobj(file, sys.stdout.buffer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pass an open file.")
    roles = parser.add_subparsers(dest="role", required=True)
    receiver, sender = roles.add_parser("receive"), roles.add_parser("send")
    sender.add_argument("file")
    for role in receiver, sender:
        role.add_argument("address", nargs="?")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    try:
        if arguments.role == "receive":
            trio.run(receive, arguments.address)
        else:
            with open(arguments.file, "rb") as file:
                trio.run(send, file, arguments.address)
    except (sockbus.SockbusError, OSError) as error:
        sys.exit(f"pass_file: {error}")
