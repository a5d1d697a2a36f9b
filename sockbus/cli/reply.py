"""``sockbus reply``: serve a pattern by echo or by running a command.

A command that fails is its requester's to know, and its complaints are shown here too; serving goes on. Of the
descriptors of a request, an echo gives them back and a command gets none.

Requests are served by threads, and this one waits for a signal: it can leave while commands are at work, and ends them
then.
"""

from __future__ import annotations

import threading
from argparse import Namespace
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, final

from ..blocking import Bus
from ..message import Message, Reply
from .client import bus
from .interruption import interruption
from .output import say

__all__ = ["reply"]

# Seconds between two looks whether a signal came: while other threads start processes, the kernel may interrupt one of
# those for it, and then nothing wakes this one.
LOOK_SECONDS = 0.2

Handler = Callable[[Message], Any]


@interruption()
def reply(arguments: Namespace) -> None:
    """Serve until a signal comes."""
    if arguments.echo:
        with bus(arguments) as connection:
            _serve(connection, arguments.pattern, _echo, None)
        return
    # Only for this: it loads subprocess.
    from .command import Command

    with Command(arguments.words, as_bytes=arguments.raw) as command, bus(arguments) as connection:

        def handler(request: Message) -> object:
            return command.run(request, connection.flush)

        _serve(connection, arguments.pattern, handler, LOOK_SECONDS)


def _serve(connection: Bus, pattern: str, handler: Handler, look_seconds: float | None) -> None:
    """Serve in threads, until the broker goes or a signal comes."""
    ended: SimpleQueue[BaseException] = SimpleQueue()

    def serve() -> None:
        try:
            connection.serve(pattern, handler, task_status=_Announcement(pattern))
        except BaseException as error:  # noqa: BLE001  # it is raised below
            ended.put(error)

    threading.Thread(target=serve, name="sockbus-reply", daemon=True).start()
    while True:
        try:
            raise ended.get(timeout=look_seconds)
        except Empty:
            continue


@final
class _Announcement:
    """What ``serve`` tells when it is in force."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def started(self, _: None = None) -> None:
        say(f"serving {self._pattern}")


def _echo(request: Message) -> Reply:
    return Reply(request.payload, headers=request.headers, fds=request.fds)
