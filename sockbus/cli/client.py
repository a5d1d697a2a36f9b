"""The verbs that are one connection and one act: ``pub``, ``sub``, ``request``, ``status``.

Each reads and opens what it needs, connects, acts, and writes its results from a thread: a reader that does not read
must keep neither Ctrl-C nor a deadline waiting, nor the connection from being served.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import select
import stat
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import final

import trio

from ..address import default_address
from ..errors import ConnectError, RemoteError
from ..message import Message
from ..trio import Subscription, connect
from . import payload, table
from .outcome import Failure, ReaderGone, UsageError
from .output import complain, escaped, say, write
from .signals import run

__all__ = ["Printer", "bus", "pub", "request", "status", "sub"]

_STDOUT = 1


def bus(arguments: Namespace) -> connect:
    """The connection that the arguments name; UsageError when the environment names no usable address."""
    try:
        address = arguments.address or default_address()
    except ConnectError as error:
        raise UsageError(str(error)) from error
    return connect(address, name=f"sockbus {arguments.verb}")


def pub(arguments: Namespace) -> None:
    """Publish one message."""

    async def work() -> None:
        content = await _content(arguments)
        async with bus(arguments) as connection:
            receipt = await connection.publish(
                arguments.topic, content, fds=fds, headers=dict(arguments.header), receipt=arguments.receipt
            )
            if receipt is not None:
                await _print(
                    f"matched {receipt.matched} delivered {receipt.delivered} dropped {receipt.dropped} "
                    f"without_fds {receipt.without_fds}\n"
                )

    with _opened(arguments.fd) as fds:
        run(work)


def request(arguments: Namespace) -> None:
    """Ask, and print the reply."""

    async def work() -> None:
        content = await _content(arguments)
        async with bus(arguments) as connection:
            try:
                reply = await connection.request(arguments.topic, content, fds=fds, timeout=arguments.timeout)
            except RemoteError as error:
                raise Failure(f"the server of {arguments.topic!r} failed: {error}") from error
            with reply:
                if reply.fds_missing:
                    complain(f"{reply.fds_missing} file descriptors of the reply are missing: TCP carries none")
                await _write(_reply_form(arguments)(reply))

    with _opened(arguments.fd) as fds:
        run(work)


def _reply_form(arguments: Namespace) -> Callable[[Message], bytes]:
    if arguments.json:
        return _json_line
    if arguments.raw:
        return payload.raw

    def form(reply: Message) -> bytes:
        shown = payload.human(reply, lines=True) + payload.human_fds(reply)
        return shown.encode() if shown.endswith("\n") else f"{shown}\n".encode()

    return form


def status(arguments: Namespace) -> None:
    """Print the broker's account of itself."""

    async def work() -> None:
        async with bus(arguments) as connection:
            with await connection.request("$SYS.status") as reply:
                if arguments.json:
                    await _print(f"{payload.json_text(payload.json_form(reply.payload))}\n")
                else:
                    await _print("".join(f"{escaped(line)}\n" for line in table.lines(reply.payload)))

    run(work)


# Subscribing


def sub(arguments: Namespace) -> None:
    """Print messages as they come."""

    async def work() -> None:
        # In a group whatever comes here comes to nobody else: one at a time, if only so many are wanted.
        capacity = 1 if arguments.group is not None and arguments.count is not None else 1024
        async with (
            bus(arguments) as connection,
            connection.subscribe(
                arguments.pattern, group=arguments.group, fds=arguments.fds, capacity=capacity
            ) as subscription,
        ):
            say(f"subscribed to {arguments.pattern}")
            with trio.CancelScope() as scope:
                trio.lowlevel.spawn_system_task(_watch_reader, scope)
                await Printer(arguments, subscription).run()
            if scope.cancelled_caught:
                raise ReaderGone

    run(work)


@final
class Printer:
    """Messages of one subscription to lines, until the count is reached, the time is over, or for ever."""

    def __init__(self, arguments: Namespace, subscription: Subscription) -> None:
        self._arguments = arguments
        self._subscription = subscription
        self._form = _message_form(arguments)
        self._left = arguments.count
        self._told = 0

    async def run(self) -> None:
        """Print; Failure when the time was over before the count was reached."""
        seconds = self._arguments.timeout
        deadline = float("inf") if seconds is None else trio.current_time() + seconds
        batches = aiter(self._subscription.batches())
        try:
            while self._left is None or self._left > 0:
                # Around the waiting alone: what was taken is printed.
                with trio.CancelScope(deadline=deadline) as waiting:
                    batch = await anext(batches)
                if waiting.cancelled_caught:
                    self._time_is_over()
                    return
                await self._print(batch)
        finally:
            self._tell_lost(self._subscription.lost - self._told, "")

    async def _print(self, batch: list[Message]) -> None:
        wanted = batch[: self._left]
        lines = []
        for message in wanted:
            if message.lost and not self._arguments.json:
                self._tell_lost(message.lost, f" before the next on {message.topic}")
            self._told += message.lost
            with message:
                lines.append(self._form(message))
        if self._left is not None:
            self._left -= len(wanted)
        await _write(b"".join(lines))

    def _tell_lost(self, count: int, where: str) -> None:
        if count:
            what = "message" if count == 1 else "messages"
            complain(f"lost {count} {what} of {self._arguments.pattern}{where}")

    def _time_is_over(self) -> None:
        count = self._arguments.count
        if count is not None:
            raise Failure(
                f"{count - self._left} of {count} messages came on {self._arguments.pattern!r} within "
                f"{self._arguments.timeout:g} s; a longer --timeout waits longer"
            )


def _message_form(arguments: Namespace) -> Callable[[Message], bytes]:
    if arguments.json:
        return _json_line
    if arguments.raw:
        return payload.raw
    return lambda message: f"{escaped(message.topic)} {payload.human(message)}{payload.human_fds(message)}\n".encode()


def _json_line(message: Message) -> bytes:
    return f"{payload.json_line(message)}\n".encode()


# Input and output


async def _content(arguments: Namespace) -> object:
    read = functools.partial(payload.read, arguments.payload, as_bytes=arguments.raw)
    return await trio.to_thread.run_sync(read, abandon_on_cancel=True)


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


async def _print(text: str) -> None:
    await _write(text.encode())


async def _write(data: bytes) -> None:
    await trio.to_thread.run_sync(write, data, abandon_on_cancel=True)


async def _watch_reader(scope: trio.CancelScope) -> None:
    """Cancel when the reader of a pipe on stdout goes, which otherwise shows with the next message only."""
    if stat.S_ISFIFO(os.fstat(_STDOUT).st_mode):
        poll = select.poll()
        poll.register(_STDOUT, 0)
        # The end of a pipe that is written to never becomes readable: what wakes this is POLLERR.
        await trio.lowlevel.wait_readable(_STDOUT)
        if poll.poll(0):
            scope.cancel()
