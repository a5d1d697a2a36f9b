"""All the waiting of one connection, by the threads that use it.

One lock guards the session; whoever waits lets go of it. The first to wait *polls*: it reads what comes, for everybody,
and writes what the socket had not taken. The others are parked, and are woken one by one when what they need has come;
when the poller has got what it needs, one of them polls. It is called when it must look up: to write as well, to count
a second, to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from threading import get_ident
from time import monotonic, perf_counter
from typing import TypeVar, final

from ..client.client import LATER_SECONDS, TICK_SECONDS, Client
from ..client.connecting import Connecting
from ..client.need import Expired, Gate, Steps, overdue
from ..errors import ConnectionLost
from ..protocol.frame import stamp
from ..protocol.pending import Pending
from ..transport.base import Blocked
from ..transport.channel import Channel
from .attempts import Attempts
from .guard import Guard
from .parker import Parker, reentered
from .poller import Poller

__all__ = ["Waits"]

T = TypeVar("T")


@final
class Waits(Guard, Client):
    """The threads of one connection, besides what every client has.

    ``with waits:`` holds the lock, as everything here asks for; the paths of every message write it out.
    """

    # A turn is a look at what has come: threads let each other run by themselves.
    yield_seconds = TICK_SECONDS

    def __init__(self, channel: Channel, connecting: Connecting) -> None:
        Guard.__init__(self)
        Client.__init__(self, channel, connecting)
        self._poller = Poller(channel.sock)
        #: who reads for all at the moment
        self.polls: Parker | None = None
        self._tick_at = math.inf
        self._parked: dict[Parker, None] = {}
        #: where those wait who want all to leave that is queued
        self.written = Gate()
        #: where those wait who read for others, until they are not needed any more
        self.over = Gate()
        #: whether the end of the bus is that this side has left it
        self.was_left = False
        self.attempts = Attempts(self)
        #: threads in a batch, and what they have published in it that is not queued yet
        self.batching: dict[int, bytearray] = {}

    # Life

    def close(self) -> None:
        """End the session, and close the socket once nobody polls it."""
        self._refuse_nested()
        self.was_left = self.error is None
        self.left()
        while self.polls is not None:
            self.polls.rouse()
            parker = Parker()
            self._park(parker, parker.sleep_through)
        self.attempts.close()
        self.channel.close()
        self._poller.close()

    def forked(self) -> None:
        # There are no other threads any more: none holds the lock, and none polls.
        self.renew()
        if self.polls is not None:
            self.polls.polls_with = None
        self.polls = None
        self._parked.clear()
        for gathered in self.batching.values():
            gathered.clear()  # it is the parent's to send
        self.attempts.close()
        self._poller.close()
        super().forked()

    # For all calls

    def send_rest(self) -> None:
        if self.polls is not None:
            # It does not know yet that there is something to write.
            self.polls.rouse()

    def flush_soon(self) -> None:
        """Who publishes sends, unless it is in a batch."""

    def look(self) -> None:
        """Take what has come, and give back what is owed, without waiting."""
        self.yielded = perf_counter()
        if self.polls is None and self.error is None:
            try:
                self._poll(Parker(), -math.inf)
            finally:
                self._hand_on()

    def check_connected(self) -> None:
        try:
            super().check_connected()
        except ConnectionLost:
            # Perhaps nobody waits for anything, and so goes on with the attempts: the next call finds a connection.
            self.look()
            raise

    def take_up(self) -> None:
        self._poller.watch(self.channel.sock)
        for gathered in self.batching.values():
            stamp(gathered, self.session.sender.number)

    def note_taken(self) -> None:
        """Something was taken: whoever polls must give its credit back in time."""
        if self.polls is not None and self._tick_at == math.inf and self.session.owes:
            self.polls.rouse()

    def drive(self, steps: Steps[T], timeout: float | None = None) -> T:
        """Wait for what the steps need until they are done, and return what they do.

        After ``timeout`` seconds they get ``Expired``. Interrupted, they are closed where they wait.
        """
        if self.batching:
            # Nothing that a thread asks for may pass what it has published, and what waits may wait for that.
            gathered = self.batching.get(get_ident())
            if gathered:
                try:
                    self.spill(gathered, timeout)
                except Expired as expired:
                    # What it means that the time is over, the steps know.
                    return self._drive(overdue(steps, expired), None)
        return self._drive(steps, timeout)

    def spill(self, gathered: bytearray, timeout: float | None = None) -> None:
        """Queue what a thread has published in a batch, when there is room, and send what the socket takes."""
        self._drive(self.put_gathered(gathered), timeout)

    def _drive(self, steps: Steps[T], timeout: float | None) -> T:
        deadline = math.inf if timeout is None else monotonic() + timeout
        try:
            need = next(steps)
            while True:
                if not isinstance(need, (Gate, Pending)):
                    # A turn. Calls that wait for nothing else look in it what has come, twice a second.
                    self.look()
                elif not self._wait(need, deadline):
                    deadline = math.inf
                    need = steps.throw(Expired(timeout or 0.0))
                    continue
                need = steps.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what StopIteration holds has no type
        finally:
            steps.close()

    def _wait(self, need: Gate | Pending, deadline: float) -> bool:
        """Wait for it; whether it came before the deadline."""
        if self.polls is not None:
            self._refuse_nested()
        parker = Parker()
        need.attach(parker.wake)
        if self.error is not None:
            # Since the steps looked, which they do again: a signal handler has forked, and this is the child.
            parker.woken = True
        in_time = looked = False
        try:
            while not parker.woken:
                if looked and not monotonic() < deadline:
                    return False
                if self.polls is not None or self.error is not None:
                    # (When the bus has ended whoever waits is woken.)
                    self._park(parker, partial(parker.sleep, deadline))
                else:
                    self._poll(parker, deadline)
                # Also when the time was over from the beginning: what is there is there.
                looked = True
            in_time = True
        finally:
            if not in_time:
                # Also when it had been woken just before, which is then the next one's.
                need.detach(parker.wake)
            if self._parked:
                self._hand_on()
        return True

    def _refuse_nested(self) -> None:
        """A signal handler cannot wait for what its own thread was about to read."""
        if self.polls is not None and self.polls.thread == get_ident():
            raise reentered()

    def _hand_on(self) -> None:
        """Whoever has polled does not any more: another one that waits must."""
        if self._parked and self.polls is None:
            next(iter(self._parked)).rouse()

    def _park(self, parker: Parker, sleep: Callable[[], None]) -> None:
        parker.prepare()
        self._parked[parker] = None
        self.__exit__()
        try:
            sleep()
        finally:
            self.__enter__()
            self._parked.pop(parker, None)

    # Polling

    def _poll(self, parker: Parker, until: float) -> None:
        """One turn: wait for the socket, at the latest until then (monotonic), and do what has become possible."""
        # (A time that is no number is over, and what `min` gives where it stands first.)
        is_away = self.session.error is not None
        if is_away:
            until = min(until, self.attempts.prepare(self._poller))
        else:
            self._poller.ask(write=self.channel.blocked is Blocked.WRITABLE)
            if self.session.deliveries.mailboxes or self.channel.blocked is not None:
                until = min(until, self._look_up_at())
        self.polls = parker
        parker.polls_with = self._poller
        self.busy = False
        self.release()
        try:
            found = self._poller.sleep(until)
        finally:
            self.acquire()
            self.busy = True
            self.polls = parker.polls_with = None
            if self.error is not None and self._parked:
                # Whoever closes waits for this.
                for parker in self._parked:
                    parker.rouse()
        if self.error is None:
            if is_away:
                self.attempts.go_on(self._poller.is_ready(found))
            else:
                self._react(found)
        if self.unreported:
            self._report()

    def _report(self) -> None:
        """Say what is to be said, without the lock: what has it may be anybody's code, and use this bus."""
        self._hand_on()
        self.busy = False
        self.release()
        try:
            self.report_all()
        finally:
            self.acquire()
            self.busy = True

    def _look_up_at(self) -> float:
        """When to stop waiting for the socket in any case (monotonic)."""
        if self.session.owes:
            self._tick_at = min(self._tick_at, monotonic() + TICK_SECONDS)
        later = monotonic() + LATER_SECONDS if self.channel.blocked is Blocked.LATER else math.inf
        return min(self._tick_at, later)

    def _react(self, found: list[tuple[int, int]]) -> None:
        channel = self.channel
        if self._poller.is_readable(found) and not channel.read():
            self._poller.watch(None)
            channel.close()
            # What was sent is sent, as far as that can be told.
            self.written.open_all()
            return
        if channel.blocked is not None:
            channel.unblock()
        if channel.blocked is None and self.written.waiting:
            self.written.open_all()
        if self._tick_at != math.inf and monotonic() >= self._tick_at:
            self._tick_at = math.inf
            self.session.tick()
            self.flush_urgent()

    def _on_room(self) -> None:
        super()._on_room()
        if self.error is not None:
            self.written.open_all()
            self.over.open_all()
            if self.polls is not None:
                self.polls.rouse()
