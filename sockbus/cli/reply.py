"""``sockbus reply``: serve a pattern by echo or by running a command.

A command that fails is its requester's to know, and its complaints are shown here too; serving goes on. Of the
descriptors of a request, an echo gives them back and a command gets none.
"""

from __future__ import annotations

import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable
from typing import Any, final

import trio

from ..errors import PayloadError
from ..message import Message, Reply
from . import payload
from .client import bus
from .outcome import Failure, UsageError
from .output import describe_end, say
from .signals import run

__all__ = ["reply"]

# Seconds that a command may take to end once this program is leaving.
PATIENCE = 1.0


class CommandFailed(Exception):
    """The command could not be run, or ended badly; the requester reads this name."""


def reply(arguments: Namespace) -> None:
    """Serve until a signal comes."""
    handler: Callable[[Message], Any] = _echo
    if not arguments.echo:
        handler = _Command(arguments.words, as_bytes=arguments.raw).handle

    async def work() -> None:
        async with bus(arguments) as connection:
            await connection.serve(arguments.pattern, handler, task_status=_Announcement(arguments.pattern))

    run(work)


@final
class _Announcement:
    """What ``serve`` tells when it is in force."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def started(self, _: None = None) -> None:
        say(f"serving {self._pattern}")


def _echo(request: Message) -> Reply:
    return Reply(request.payload, headers=request.headers, fds=request.fds)


@final
class _Command:
    """A command without a shell: payload in, reply out."""

    def __init__(self, words: list[str], *, as_bytes: bool) -> None:
        self._words = words
        self._as_bytes = as_bytes
        if not self._words:
            raise UsageError("--exec names no command; see sockbus reply --help")
        self._name = shlex.join(self._words)
        if shutil.which(self._words[0]) is None:
            raise Failure(f"--exec {self._words[0]} cannot be run: there is no such program; name one, or its path")

    async def handle(self, request: Message) -> object:
        """Run it for one request; CommandFailed, PayloadError."""
        given = b"" if request.payload is None else _input(request.payload)
        try:
            done = await trio.run_process(
                self._words, stdin=given, capture_stdout=True, capture_stderr=True, check=False, deliver_cancel=_end
            )
        except OSError as error:
            raise CommandFailed(f"{self._name} cannot be run: {error.strerror}") from error
        complaints = done.stderr.decode(errors="replace").splitlines()
        for line in complaints:
            say(line)
        if done.returncode:
            last = next((line.strip() for line in reversed(complaints) if line.strip()), "it said nothing")
            raise CommandFailed(f"{self._name} {describe_end(done.returncode)}: {last}")
        return payload.from_output(done.stdout, as_bytes=self._as_bytes)


def _input(content: object) -> bytes:
    try:
        return payload.to_bytes(content)
    except RecursionError as error:
        raise PayloadError("the payload is nested too deeply to be given to a command as JSON") from error


async def _end(process: trio.Process) -> None:
    """How trio ends the command when cancelled."""
    process.terminate()
    with trio.CancelScope(deadline=trio.current_time() + PATIENCE, shield=True):
        await process.wait()
        return
    process.kill()
