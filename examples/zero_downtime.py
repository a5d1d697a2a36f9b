"""Replaces a server that was killed, and no client is refused meanwhile: its listening socket is kept by the broker.

    python examples/zero_downtime.py serve [ADDRESS]
    python examples/zero_downtime.py call [ADDRESS]

`call` calls without end, and says who answers when that changes. Kill the server with `kill -9`, start another one: it
takes over the socket, where calls have waited for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys

import sockbus
from sockbus.blocking import Bus, connect

LISTENER = "echo.listener"


def serve(bus: Bus) -> None:
    if not any(row["topic"] == LISTENER for row in bus.request("$SYS.retained").payload):
        with socket.create_server(("127.0.0.1", 0)) as new:
            bus.publish(LISTENER, new.getsockname()[1], fds=[new], retain=True)
    with bus.subscribe(LISTENER) as values:
        listener = values.receive().fds[0].socket()
    print(f"serving port {listener.getsockname()[1]}, known at {bus.address}", file=sys.stderr, flush=True)
    while True:
        with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"%d %b" % (os.getpid(), connection.recv(1024)))


def call(bus: Bus) -> None:
    with bus.subscribe(LISTENER, fds="strip") as values, values.receive() as value:
        address = ("127.0.0.1", value.payload)
    before = echo = ""
    while True:
        with socket.create_connection(address) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"hello")
            who, _, echo = connection.recv(1024).decode().partition(" ")
        if echo == "hello" and who != before:
            print(f"answered by process {(before := who)}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends cat: at once and without a traceback
    parser = argparse.ArgumentParser(description="Replace a server that was killed.")
    parser.add_argument("role", choices=("serve", "call"))
    parser.add_argument("address", nargs="?")
    arguments = parser.parse_args()
    try:
        with connect(arguments.address) as bus:
            (serve if arguments.role == "serve" else call)(bus)
    except (sockbus.SockbusError, OSError) as error:
        sys.exit(f"zero_downtime: {error}")
