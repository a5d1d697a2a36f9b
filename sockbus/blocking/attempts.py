"""Connecting again, by whoever polls: a step at a time, between which the caller may end or be called.

The steps of an attempt are kept here while they wait, and belong to no call: when the one that polled has got what it
needs, or its time is over, the next one that polls goes on with them. A host's name is looked up in a thread of its
own, which ends with that: nothing interrupts getaddrinfo(3), and calls with a timeout must not wait for it.
"""

from __future__ import annotations

import errno
import math
import select
import socket
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, final

from ..client.connecting import CONNECT_SECONDS
from ..client.need import Expired, Gate, Need, Steps, resume
from ..transport.dial import Pause, Readable, Resolve, Writable
from .poller import Poller

if TYPE_CHECKING:
    from .waits import Waits

__all__ = ["ATTEMPT_SECONDS", "Attempts"]

# Seconds that a publish gives an attempt that is due, before it leaves what it has to the buffer.
ATTEMPT_SECONDS = 1.0


@final
class Attempts:
    """The attempts of one bus, one after the other. Everything is called with the lock of ``Waits`` held."""

    def __init__(self, waits: Waits) -> None:
        #: how many have ended
        self.count = 0
        #: where those wait who want to know how one ends
        self.over = Gate()
        self._waits = waits
        self._steps: Steps[None] | None = None
        self._need: Need | None = None
        self._at = math.nan
        self._until = math.inf
        # What the look-up that the steps wait for has found, in the end.
        self._found: list[Any] = []

    def is_due(self) -> bool:
        """Whether one is under way, or should be."""
        return self._steps is not None or not self._at > monotonic()

    def made(self) -> Steps[None]:
        """Wait for the end of the attempt that is due."""
        count = self.count
        while self._waits.error is None and count == self.count:
            yield self.over

    def prepare(self, poller: Poller) -> float:
        """What to wait for: a socket, or nothing; and until when (monotonic)."""
        if self._steps is None:
            if math.isnan(self._at):
                self._at = monotonic() + self._waits.pause()
            poller.watch(None)
            return self._at
        match self._need:
            case Readable(sock):
                poller.watch(sock)
            case Writable(sock):
                poller.watch(sock, select.POLLOUT)
            case Resolve():
                poller.watch(None)
                return -math.inf if self._found else self._until
            case _:
                poller.watch(None)
                return min(self._at, self._until)
        return self._until

    def go_on(self, ready: bool) -> None:  # noqa: FBT001  # what the poller has found
        """The time or the socket that ``prepare`` named may have come."""
        now = monotonic()
        if self._steps is None:
            if now < self._at:
                return
            self._steps = self._waits.reconnect()
            self._until = now + CONNECT_SECONDS
            self._step(None)
            return
        if now >= self._until:
            self._until = math.inf
            self._step(Expired(CONNECT_SECONDS))
        elif isinstance(self._need, Resolve):
            if self._found:
                self._step(self._found.pop())
        elif ready or (not isinstance(self._need, (Readable, Writable)) and now >= self._at):
            self._step(None)

    def _step(self, found: Any) -> None:
        steps = self._steps
        assert steps is not None
        try:
            self._need = steps.throw(found) if isinstance(found, Expired) else resume(steps, found)
            if isinstance(self._need, Resolve):
                self._look_up(self._need)
        except StopIteration:
            self._steps = self._need = None
            is_away = self._waits.session.error is not None
            self._at = monotonic() + self._waits.pause() if is_away else math.nan
            self.count += 1
            self.over.open_all()
            return
        except BaseException:
            self._steps = self._need = None
            self._at = math.nan
            raise
        self._at = monotonic() + self._need.seconds if isinstance(self._need, Pause) else -math.inf

    def _look_up(self, need: Resolve) -> None:
        self._found = []
        try:
            # What is no name waits for nobody.
            self._found.append(_addresses(need, socket.AI_NUMERICHOST))
        except OSError:
            try:
                Thread(target=self._look_up_name, args=(need, self._found), daemon=True).start()
            except RuntimeError as error:
                self._found.append(OSError(errno.EAGAIN, str(error)))

    def _look_up_name(self, need: Resolve, found: list[Any]) -> None:
        result: object
        try:
            result = _addresses(need)
        except OSError as error:
            result = error
        self._waits.acquire()
        try:
            found.append(result)
            if self._found is found and self._waits.polls is not None:
                self._waits.polls.rouse()
        finally:
            self._waits.release()

    def close(self) -> None:
        """Give up what is under way."""
        self._found = []
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()


def _addresses(need: Resolve, flags: int = 0) -> object:
    return socket.getaddrinfo(need.host, need.port, type=socket.SOCK_STREAM, flags=flags)
