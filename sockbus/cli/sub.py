"""``sockbus sub``: messages to lines.

The bus is served while a reader does not read: the broker would have to hold what was sent here, and other publishers
would wait for that. Neither Ctrl-C nor the end of the time waits for such a reader.
"""

from __future__ import annotations

import contextlib
import math
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import final

from ..blocking import Subscription
from ..errors import ConnectionLost
from ..message import Message
from . import payload
from .client import bus
from .interruption import interruption
from .outcome import Failure, ReaderGone
from .output import complain, escaped, say, watch_reader, write

__all__ = ["Printer", "sub"]


@interruption()
def sub(arguments: Namespace) -> None:
    """Print messages as they come."""
    # In a group whatever comes here comes to nobody else: one at a time, if only so many are wanted.
    capacity = 1 if arguments.group is not None and arguments.count is not None else 1024
    with bus(arguments) as connection, contextlib.ExitStack() as leaving:
        subscription = leaving.enter_context(
            connection.subscribe(arguments.pattern, group=arguments.group, fds=arguments.fds, capacity=capacity)
        )
        say(f"subscribed to {arguments.pattern}")
        watch_reader(leaving.close)
        Printer(arguments, subscription, connection.background).run()


@final
class Printer:
    """Messages of one subscription to lines, until the count is reached, the time is over, or for ever.

    ``background`` makes blocks in which the bus is served.
    """

    def __init__(
        self, arguments: Namespace, subscription: Subscription, background: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._arguments = arguments
        self._subscription = subscription
        self._background = background
        self._form = _message_form(arguments)
        self._left = arguments.count
        self._told = 0
        self._deadline = math.inf

    def run(self) -> None:
        """Print; Failure when the time was over before the count was reached, ReaderGone when the reader has gone."""
        if self._arguments.timeout is not None:
            self._deadline = monotonic() + self._arguments.timeout
        try:
            while self._left is None or self._left > 0:
                batch = self._next()
                if not batch:
                    self._time_is_over()
                    return
                self._print(batch)
        finally:
            self._tell_lost(self._subscription.lost - self._told, "")

    def _next(self) -> list[Message]:
        """What has come; empty when the time is over."""
        seconds = self._deadline - monotonic()
        if seconds <= 0:
            # Also where more is there: it may never stop coming.
            return []
        batches = self._subscription.batches(timeout=None if seconds == math.inf else seconds)
        try:
            batch = next(batches, None)
        except TimeoutError:
            return []
        if batch is None:
            # It was left from elsewhere: by who watches the reader.
            raise ReaderGone
        return batch

    def _print(self, batch: list[Message]) -> None:
        wanted = batch[: self._left]
        lines = []
        for message in wanted:
            if message.interrupted and not self._arguments.json:
                complain(f"the connection was lost before the next on {message.topic}; what came meanwhile is missing")
            if message.lost and not self._arguments.json:
                self._tell_lost(message.lost, f" before the next on {message.topic}")
            self._told += message.lost
            with message:
                lines.append(self._form(message))
        if self._left is not None:
            self._left -= len(wanted)
        self._write(b"".join(lines))

    def _write(self, data: bytes) -> None:
        rest = write(data, deadline=0.0)
        if not rest:
            return
        with contextlib.ExitStack() as serving:
            with contextlib.suppress(ConnectionLost):
                serving.enter_context(self._background())
            rest = write(rest, deadline=self._deadline)
        if rest:
            raise Failure(
                f"standard output did not take the last {len(rest)} bytes within {self._arguments.timeout:g} s; does "
                f"its reader not read?"
            )

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
    """How the arguments want a message to be printed."""
    if arguments.json:
        return payload.json_bytes
    if arguments.raw:
        return payload.raw

    def line(message: Message) -> bytes:
        mark = " [retained]" if message.retained else ""
        return f"{escaped(message.topic)} {payload.human(message)}{payload.human_fds(message)}{mark}\n".encode()

    return line
