"""The one lock of a bus that many threads use."""

from __future__ import annotations

import threading
from typing import Self

from .parker import reentered

__all__ = ["Guard"]


class Guard:
    """``with guard:`` holds the lock. Whoever waits leaves it meanwhile; the paths of every message write it out."""

    def __init__(self) -> None:
        # Reentrant only so that a thread can be told that it is in the middle of a call, instead of waiting for itself.
        self._make()
        #: a call is under way, and is not waiting
        self.busy = False

    def _make(self) -> None:
        lock = threading.RLock()
        # Bound once, for the paths of every message: `with lock` costs twice as much.
        self.acquire, self.release = lock.acquire, lock.release

    def renew(self) -> None:
        """In a forked child, where no other thread is that could hold it."""
        if self.acquire(False):
            # Free, or this thread's: a signal handler or a finalizer forked in a call, which goes on in the child.
            self.release()
        else:
            self._make()
            self.busy = False

    def enter(self) -> None:
        """Hold the lock; ``busy = False`` and ``release()`` let go of it."""
        self.acquire()
        if self.busy:
            self.release()
            raise reentered()
        self.busy = True

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.busy = False
        self.release()
