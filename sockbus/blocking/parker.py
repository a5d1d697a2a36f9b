"""Where one call of one thread waits."""

from __future__ import annotations

import threading
from threading import get_ident
from time import monotonic
from typing import Any, final

from ..interrupt import deliver, interruptible
from .poller import Poller

__all__ = ["Parker", "reentered"]


@final
class Parker:
    """One waiting call. Everything but ``sleep`` is done with the lock of ``Waits`` held."""

    __slots__ = ("_lock", "polls_with", "thread", "woken")

    def __init__(self) -> None:
        self.woken = False
        self.thread = get_ident()
        #: what calls it while it polls
        self.polls_with: Poller | None = None
        self._lock: Any = None

    def wake(self) -> None:
        """What it waits for has come."""
        self.woken = True
        self.rouse()

    def rouse(self) -> None:
        """Let it look whether there is something to do."""
        if self.polls_with is not None:
            self.polls_with.call()
        elif self._lock is not None and self._lock.locked():
            self._lock.release()

    def prepare(self) -> None:
        """Make it possible to sleep; most calls never do, for they poll."""
        if self._lock is None:
            self._lock = threading.Lock()
            self._lock.acquire()

    def sleep_through(self) -> None:
        """Until roused, which will be soon; a Ctrl-C waits."""
        self._lock.acquire()

    @interruptible
    def sleep(self, until: float) -> None:
        """Until roused, at the latest until then (monotonic)."""
        deliver()
        self._lock.acquire(True, min(max(0.0, until - monotonic()), threading.TIMEOUT_MAX))


def reentered() -> RuntimeError:
    """What a call raises in the middle of another one of the same thread."""
    return RuntimeError(
        "this bus is in the middle of a call of the same thread, which a signal handler or a finalizer interrupted; "
        "use another connection there"
    )
