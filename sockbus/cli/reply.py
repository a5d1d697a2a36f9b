"""``sockbus reply``: serve a pattern by echo or by running a command.

A command that fails is its requester's to know, and its complaints are shown here too; serving goes on. Of the
descriptors of a request, an echo gives them back and a command gets none.

Requests are served by threads, and this one waits for a signal: it can leave while commands are at work, and ends them
then.
"""

from __future__ import annotations

import contextlib
import threading
from argparse import Namespace
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, final

from ..blocking import Bus
from ..errors import ConnectionLost
from ..message import Message, Reply
from ..state import BusState
from .client import bus
from .interruption import interruption
from .output import say

__all__ = ["reply"]

Handler = Callable[[Message], Any]


@interruption()
def reply(arguments: Namespace) -> None:
    """Serve until a signal comes."""
    if arguments.echo:
        with bus(arguments) as connection:
            _serve(connection, arguments.pattern, _echo)
        return
    # Only for this: it loads subprocess.
    from .command import Command

    with Command(arguments.words, as_bytes=arguments.raw) as command, bus(arguments) as connection:
        _serve(connection, arguments.pattern, lambda request: command.run(request, _Look(connection)))


def _serve(connection: Bus, pattern: str, handler: Handler) -> None:
    """Serve in threads, until the broker goes or a signal comes."""
    ended: SimpleQueue[BaseException] = SimpleQueue()

    def serve() -> None:
        try:
            connection.serve(pattern, handler, task_status=_Announcement(pattern))
        except BaseException as error:  # noqa: BLE001  # it is raised below
            ended.put(error)

    threading.Thread(target=serve, name="sockbus-reply", daemon=True).start()
    raise ended.get()


@final
class _Look:
    """Whether the reply to a request could still be given: it goes by the connection that the request came by."""

    def __init__(self, connection: Bus) -> None:
        self._connection = connection
        # Another connection has another one, though the next broker may number it alike.
        self._peer = connection.peer

    def __call__(self) -> None:
        with contextlib.suppress(TimeoutError):
            # Where every thread is at work, this one has to read.
            self._connection.flush(timeout=0.0)
        if self._connection.state is not BusState.CONNECTED or self._connection.peer is not self._peer:
            raise ConnectionLost("the connection that the request came by was lost")


@final
class _Announcement:
    """What ``serve`` tells when it is in force."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def started(self, _: None = None) -> None:
        say(f"serving {self._pattern}")


def _echo(request: Message) -> Reply:
    return Reply(request.payload, headers=request.headers, fds=request.fds)
