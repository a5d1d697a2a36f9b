"""The connection of a verb, and the verbs that send something: ``pub``, ``request``.

Each reads and opens what it needs, connects, acts, and writes its results when it has left: a reader that does not read
keeps no connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from ..address import default_address
from ..blocking import Bus, connect
from ..client.connecting import Reconnect
from ..client.reporting import report_to
from ..errors import ConnectError, RemoteError
from ..message import Message
from . import payload
from .interruption import interruption, left_in_haste
from .outcome import Failure, UsageError
from .output import complain, write

__all__ = ["bus", "pub", "request"]


def bus(arguments: Namespace) -> AbstractContextManager[Bus]:
    """The connection that the arguments name; UsageError when the environment names no usable address."""
    try:
        address = arguments.address or default_address()
    except ConnectError as error:
        raise UsageError(str(error)) from error
    report_to(complain)
    # What waits for one answer is not to wait for another broker that does not know the question.
    reconnect: Reconnect = None if arguments.verb in ("request", "status") else "wait"
    return left_in_haste(connect(address, name=f"sockbus {arguments.verb}", reconnect=reconnect))


@interruption()
def pub(arguments: Namespace) -> None:
    """Publish one message."""
    with _opened(arguments.fd) as fds:
        content = payload.read(arguments.payload, as_bytes=arguments.raw)
        with bus(arguments) as connection:
            receipt = connection.publish(
                arguments.topic,
                content,
                fds=fds,
                headers=dict(arguments.header),
                receipt=arguments.receipt,
                retain=arguments.retain,
            )
    if connection.in_doubt:
        raise Failure(f"the connection was lost while the message on {arguments.topic!r} was sent; it may be lost too")
    if receipt is not None:
        became = (
            f"matched {receipt.matched} delivered {receipt.delivered} dropped {receipt.dropped} "
            f"without_fds {receipt.without_fds}\n"
        )
        write(became.encode())


@interruption()
def request(arguments: Namespace) -> None:
    """Ask, and print the reply."""
    with _opened(arguments.fd) as fds:
        content = payload.read(arguments.payload, as_bytes=arguments.raw)
        with bus(arguments) as connection:
            try:
                reply = connection.request(arguments.topic, content, fds=fds, timeout=arguments.timeout)
            except RemoteError as error:
                raise Failure(f"the server of {arguments.topic!r} failed: {error}") from error
    with reply:
        if reply.fds_missing:
            complain(f"{reply.fds_missing} file descriptors of the reply are missing: TCP carries none")
        write(_reply_form(arguments)(reply))


def _reply_form(arguments: Namespace) -> Callable[[Message], bytes]:
    if arguments.json:
        return payload.json_bytes
    if arguments.raw:
        return payload.raw

    def form(reply: Message) -> bytes:
        shown = payload.human(reply, lines=True) + payload.human_fds(reply)
        return shown.encode() if shown.endswith("\n") else f"{shown}\n".encode()

    return form


@contextlib.contextmanager
def _opened(paths: Sequence[str]) -> Iterator[list[int]]:
    """The files of --fd, open for reading."""
    with contextlib.ExitStack() as stack:
        fds = []
        for path in paths:
            fd = _open(path)
            stack.callback(os.close, fd)
            fds.append(fd)
        yield fds


def _open(path: str) -> int:
    try:
        # Without O_NONBLOCK a FIFO would wait for a writer, and some devices for their line; receivers get it without.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"--fd {path} cannot be opened: {error.strerror}; name a file that can be read") from error
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    return fd
