"""The command of ``reply --exec``: a process for each request, payload in, reply out.

Whoever runs it is in a thread of its own and waits for nothing but its process; so a process is ended by whoever leaves
meanwhile, and by itself when there is no connection any more on which its reply could leave.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Self, final

from ..errors import PayloadError
from ..message import Message
from . import payload
from .outcome import Failure, UsageError
from .output import describe_end, say

__all__ = ["Command"]

# Seconds that a command may take to end once this program is leaving.
PATIENCE = 1.0
# Seconds between two looks at the connection while a command is at work.
LOOK_SECONDS = 1.0


class CommandFailed(Exception):
    """The command could not be run, or ended badly; the requester reads this name."""


@final
class Command:
    """A command without a shell. Leaving its block ends the processes that still run."""

    def __init__(self, words: Sequence[str], *, as_bytes: bool) -> None:
        self._words = words
        self._as_bytes = as_bytes
        if not words:
            raise UsageError("--exec names no command; see sockbus reply --help")
        self._name = shlex.join(words)
        if shutil.which(words[0]) is None:
            raise Failure(f"--exec {words[0]} cannot be run: there is no such program; name one, or its path")
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ending = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ending = True
            running = list(self._running)
        _end(running)

    def run(self, request: Message, look: Callable[[], object]) -> object:
        """Run it for one request: its reply. ``look``, called at times, raises when nobody can get that any more.

        CommandFailed, PayloadError.
        """
        given = b"" if request.payload is None else _input(request.payload)
        with self._start() as process:
            try:
                out, err = _communicate(process, given, look)
            finally:
                _end([process])
                self._running.discard(process)
        complaints = [] if self._ending else err.decode(errors="replace").splitlines()
        for line in complaints:
            say(line)
        if process.returncode:
            last = next((line.strip() for line in reversed(complaints) if line.strip()), "it said nothing")
            raise CommandFailed(f"{self._name} {describe_end(process.returncode)}: {last}")
        return payload.from_output(out, as_bytes=self._as_bytes)

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        # Locked, so that none starts unseen by who ends them all.
        with self._lock:
            if self._ending:
                raise CommandFailed(f"{self._name} was not run: this server is leaving")
            try:
                process = subprocess.Popen(self._words, stdin=pipe, stdout=pipe, stderr=pipe)
            except OSError as error:
                raise CommandFailed(f"{self._name} cannot be run: {error.strerror}") from error
            self._running.add(process)
        return process


def _communicate(process: subprocess.Popen[bytes], given: bytes, look: Callable[[], object]) -> tuple[bytes, bytes]:
    """Both outputs of the process, once it has ended."""
    rest: bytes | None = given
    while True:
        try:
            return process.communicate(rest, LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            # It keeps what it has not written yet.
            rest = None
            look()


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = monotonic() + PATIENCE
    try:
        for process in processes:
            process.wait(max(0.0, deadline - monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            process.kill()


def _input(content: object) -> bytes:
    try:
        return payload.to_bytes(content)
    except RecursionError as error:
        raise PayloadError("the payload is nested too deeply to be given to a command as JSON") from error
