"""``sockbus broker``: a ``Server`` with addresses, limits, signals and a log.

stdout gets the lines ``listening on ADDRESS`` and nothing else. A stdout or a ready descriptor that nobody reads is
told in the log and costs nothing more.
"""

from __future__ import annotations

import fcntl
import logging
import os
from argparse import Namespace
from typing import final

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
    if arguments.ready_fd is not None:
        _check_ready_fd(arguments.ready_fd)
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

    run(lambda: server.serve(task_status=_Ready(arguments.ready_fd, log)), stop)


def _config(arguments: Namespace) -> Config:
    config = load(arguments.config) if arguments.config is not None else Config()
    named = [*arguments.addresses, *([arguments.address] if arguments.address is not None else [])]
    config.addresses = named or config.addresses or [default_address()]
    for text in arguments.limit:
        config.limits.parse(text)
    config.insecure_tcp |= arguments.insecure_tcp
    return config


def _check_ready_fd(fd: int) -> None:
    """Before any other file is opened, which could get the same number."""
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as error:
        raise UsageError(f"--ready-fd {fd} cannot be used: {error.strerror}; give the number of an open one") from error
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise UsageError(f"--ready-fd {fd} cannot be used: it is open for reading only; give one to write to")


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
