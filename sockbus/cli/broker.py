"""``sockbus broker``: a ``Server`` with addresses, limits, signals and a log.

stdout gets the lines ``listening on ADDRESS`` and nothing else. A stdout or a ready descriptor that nobody reads is
told in the log and costs nothing more. A lifeline is a pipe or socket whose end is the broker's end: the kernel closes
the other end of it however its holder dies, before the broker looks or after.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from argparse import Namespace
from collections.abc import Callable
from typing import final

import trio

from ..address import default_address
from ..broker.config import Config, ConfigError, load, raise_open_files
from ..broker.server import Server
from ..errors import ConnectError
from .log import start_logging
from .outcome import Failure, ReaderGone, UsageError
from .output import write
from .signals import run

__all__ = ["broker"]


def broker(arguments: Namespace) -> None:
    """Serve until a signal comes."""
    ready, lifeline = arguments.ready_fd, arguments.lifeline_fd
    # Before any other file is opened, which could get the same number.
    if ready is not None:
        _check_fd(f"--ready-fd {ready}", ready, os.O_RDONLY, "it is open for reading only; give one to write to")
    if lifeline is not None:
        _check_fd(f"--lifeline-fd {lifeline}", lifeline, os.O_WRONLY, "it is open for writing only; give one to read")
        _check_lifeline(lifeline, ready)
    try:
        config = _config(arguments)
        config.check()
    except (ConfigError, ConnectError) as error:
        # A setting that cannot be, wherever it stands: nothing was begun.
        raise UsageError(str(error)) from error
    log = start_logging()

    def announce(address: str) -> None:
        try:
            write(f"listening on {address}\n".encode())
        except (Failure, ReaderGone) as error:
            log.warning("`listening on %s` was not printed: %s", address, error)

    raise_open_files()
    server = Server(config, announce)

    def stop() -> None:
        log.info("stopping")
        server.stop()

    async def work() -> None:
        if lifeline is not None:
            # The system's nursery is its parent: one here would wrap what `serve` raises into a group.
            trio.lowlevel.spawn_system_task(_hold, lifeline, server.stop)
        await server.serve(task_status=_Ready(ready, log))

    run(work, stop)


def _config(arguments: Namespace) -> Config:
    config = load(arguments.config) if arguments.config is not None else Config()
    named = [*arguments.addresses, *([arguments.address] if arguments.address is not None else [])]
    config.addresses = named or config.addresses or [default_address()]
    for text in arguments.limit:
        config.limits.parse(text)
    config.insecure_tcp |= arguments.insecure_tcp
    return config


def _check_fd(option: str, fd: int, useless: int, complaint: str) -> None:
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as error:
        raise UsageError(f"{option} cannot be used: {error.strerror}; give the number of an open one") from error
    if flags & os.O_ACCMODE == useless:
        raise UsageError(f"{option} cannot be used: {complaint}")


def _check_lifeline(fd: int, ready: int | None) -> None:
    mode = os.fstat(fd).st_mode
    if fd == ready or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise UsageError(f"--lifeline-fd {fd} cannot be used: give a pipe or socket that is for nothing else")


async def _hold(lifeline: int, ended: Callable[[], None]) -> None:
    """Call ``ended`` once nobody holds the other end; silently, as whoever let go of it knows."""
    while True:
        await trio.lowlevel.wait_readable(lifeline)
        try:
            if not os.read(lifeline, 4096):
                break
        except BlockingIOError:
            continue
        except OSError:
            # Reset: the end as well.
            break
    ended()


@final
class _Ready:
    """What ``serve`` tells when all addresses accept."""

    def __init__(self, fd: int | None, log: logging.Logger) -> None:
        self._fd = fd
        self._log = log

    def started(self, _: None = None) -> None:
        """Tell whoever gave the descriptor, and close it."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, b"ready\n")
        except OSError as error:
            self._log.warning("`ready` was not written to fd %d: %s", self._fd, error.strerror)
        os.close(self._fd)
