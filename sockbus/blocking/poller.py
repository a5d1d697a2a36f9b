"""Sleeping until a socket is ready, a time has come, or another thread calls (poll(2), eventfd(2))."""

from __future__ import annotations

import math
import os
import select
import socket
import time
from time import monotonic
from typing import Any, TypeVar, final

from ..client.need import Expired, Need, Steps, resume
from ..interrupt import deliver, interruptible, pending
from ..transport.dial import Pause, Resolve, Writable

__all__ = ["Poller", "drive_dialling"]

T = TypeVar("T")

# About as long as poll(2) can wait at once; who waits longer looks at the clock in between.
_LONGEST = 1e6


@final
class Poller:
    """One socket, and a descriptor of its own by which whoever sleeps is called."""

    __slots__ = ("_asked", "_call", "_poll", "_watched")

    def __init__(self, sock: socket.socket) -> None:
        self._call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._call, select.POLLIN)
        self._watched = -1
        self._asked = 0
        self.watch(sock)

    def watch(self, sock: socket.socket | None, events: int = select.POLLIN) -> None:
        """Wait for this socket instead, or for none; for ``events`` of it until ``ask`` is called."""
        if self._watched >= 0:
            self._poll.unregister(self._watched)
        self._watched = -1 if sock is None else sock.fileno()
        if self._watched >= 0:
            self._poll.register(self._watched, events)
            self._asked = events

    def ask(self, *, write: bool) -> None:
        """Wait until there is something to read, or with ``write`` until the socket takes more besides."""
        wanted = select.POLLIN | select.POLLOUT if write else select.POLLIN
        if wanted != self._asked:
            self._poll.modify(self._watched, wanted)
            self._asked = wanted

    @interruptible
    def sleep(self, until: float) -> list[tuple[int, int]]:
        """Sleep, at the latest until then (monotonic); for ``is_readable``."""
        # What came on the way here would have to wait until something else wakes this.
        if pending.came:
            deliver()
        if until == math.inf:
            return self._poll.poll()
        return self._poll.poll(_milliseconds(until - monotonic()))

    def is_readable(self, found: list[tuple[int, int]]) -> bool:
        """Whether there is something to read, the end included; a call was heard by now."""
        readable = False
        for fd, events in found:
            if fd == self._call:
                os.eventfd_read(self._call)
            elif events & ~select.POLLOUT:
                readable = True
        return readable

    def is_ready(self, found: list[tuple[int, int]]) -> bool:
        """Whether anything has come of the socket; a call was heard by now."""
        return self.is_readable(found) or any(fd != self._call for fd, _ in found)

    def call(self) -> None:
        """Let whoever sleeps, or the next to do so, look up."""
        os.eventfd_write(self._call, 1)

    def close(self) -> None:
        """Nobody sleeps here any more; again is no error."""
        if self._call >= 0:
            os.close(self._call)
            self._call = -1


def drive_dialling(steps: Steps[T], timeout: float | None) -> T:
    """Wait for what dialling needs; no other thread knows of it yet. After ``timeout`` seconds it gets ``Expired``."""
    deadline = math.inf if timeout is None else monotonic() + timeout
    try:
        need = next(steps)
        while True:
            seconds = deadline - monotonic()
            need = steps.throw(Expired(timeout or 0.0)) if seconds <= 0 else resume(steps, _wait(need, seconds))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what StopIteration holds has no type
    finally:
        steps.close()


@interruptible
def _wait(need: Need, seconds: float) -> Any:
    deliver()
    match need:
        case Writable():
            poll = select.poll()
            poll.register(need.sock, select.POLLOUT)
            poll.poll(None if seconds == math.inf else _milliseconds(seconds))
        case Pause():
            time.sleep(min(need.seconds, seconds))
        case Resolve():
            try:
                return socket.getaddrinfo(need.host, need.port, type=socket.SOCK_STREAM)
            except OSError as error:
                return error
    return None


def _milliseconds(seconds: float) -> int:
    # Up, so that nobody is woken a little too early again and again.
    return int(min(seconds, _LONGEST) * 1000) + 1 if seconds > 0 else 0
