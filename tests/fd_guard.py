"""The fd guard: which fds a piece of code opened and did not close.

Owns the comparison of this process's open fds before and after. An fd is told by its number and by what it
points at (`proc(5)`: /proc/PID/fd), so that a number closed and taken again counts as new, and two fds of one
file count as two. Refuses stdin, stdout and stderr, which pytest's capture exchanges while a test runs.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

SETTLE_SECONDS = 1.0  # a closer thread on a loaded machine, with much to spare
FIRST_PAUSE = 0.001  # seconds; each pause is twice the last, as looking again costs a garbage collection


class OpenFd(NamedTuple):
    number: int
    target: str


class FdGuard:
    """Remembers the fds open when it is made. `clock` and `pause` are for tests of the guard itself."""

    __slots__ = ("_before", "_clock", "_pause")

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._before = open_fds()

    def leaked(self) -> list[OpenFd]:
        """The fds opened since and still open, in order.

        Returns at once when there are none. Otherwise collects garbage and looks again for SETTLE_SECONDS,
        as an fd may belong to a cycle or to a thread that closes in the background.
        """
        leaked = open_fds() - self._before
        deadline = self._clock() + SETTLE_SECONDS
        seconds = FIRST_PAUSE
        while leaked:
            gc.collect()
            leaked = open_fds() - self._before
            remaining = deadline - self._clock()
            if not leaked or remaining <= 0:
                break
            self._pause(min(seconds, remaining))
            seconds *= 2
        return sorted(leaked)


def listing(leaked: Iterable[OpenFd]) -> str:
    """The sentence for a failed test: how many fds, and a line for each."""
    lines = [f"  fd {fd.number} -> {fd.target}" for fd in leaked]
    return "\n".join([f"{len(lines)} leaked fd{'s' if len(lines) != 1 else ''}:", *lines])


def open_fds() -> set[OpenFd]:
    """Every open fd above stderr."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own fd, or one that a thread has closed since
        # A file that is unlinked while open changes its name to "PATH (deleted)" and is the same fd still.
        found.add(OpenFd(int(name), target.removesuffix(" (deleted)")))
    return {fd for fd in found if fd.number > 2}
