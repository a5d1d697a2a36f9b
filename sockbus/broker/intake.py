"""What one peer may send: the broker's side of docs/wire.md, "Windows", for one class of messages.

An ``Intake`` counts what was started and what was taken over, and decides when it is time to grant more: when half of
what is not stuck has been used. So a peer whose window is nearly spent on a stopped reader is granted the little that
is free at once, and one whose messages flow hears from the broker every half window.
"""

from __future__ import annotations

from typing import final

from ..errors import LimitExceeded
from ..protocol.inbox import Run, fit

__all__ = ["Intake"]


@final
class Intake:
    """One class of messages of one link. ``size_bytes``, ``size_fds``: how much may be outstanding."""

    __slots__ = (
        "moved", "name", "received_bytes", "received_fds", "size_bytes", "size_fds", "taken_bytes", "taken_fds",
        "taken_messages", "told_bytes", "told_fds", "told_messages",
    )  # fmt: skip

    def __init__(self, name: str, size_bytes: int, size_fds: int, *, closed: bool = False) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.size_fds = size_fds
        self.received_bytes = self.received_fds = 0
        self.taken_bytes = self.taken_fds = 0
        #: messages taken over that nothing else answers, and those of them that the peer was told of
        self.taken_messages = self.told_messages = 0
        #: whether something was taken over, or the window was spent, since ``due`` last looked
        self.moved = closed
        #: granted totals that the peer was told
        self.told_bytes = 0 if closed else size_bytes
        self.told_fds = 0 if closed else size_fds

    @property
    def held_bytes(self) -> int:
        """Bytes started and not taken over."""
        return self.received_bytes - self.taken_bytes

    @property
    def held_fds(self) -> int:
        """Descriptors received and not taken over."""
        return self.received_fds - self.taken_fds

    def start(self, cost: int, fds: int) -> None:
        """A message starts; LimitExceeded when the window was spent."""
        if self.received_bytes >= self.told_bytes or (fds and self.received_fds >= self.told_fds):
            raise LimitExceeded(
                f"a {self.name} was started with {self.received_bytes} bytes and {self.received_fds} fds sent, where "
                f"{self.told_bytes} and {self.told_fds} were granted; wait for a WINDOW frame"
            )
        self.received_bytes += cost
        self.received_fds += fds
        if self.received_bytes >= self.told_bytes or self.received_fds >= self.told_fds:
            self.moved = True

    def start_run(self, run: Run) -> None:
        """A run of plain messages starts, one after the other; LimitExceeded as ``start``."""
        size = run.end - run.start
        if self.received_bytes + size > self.told_bytes:
            started, _ = fit(run.buffer, run.start, run.end, run.count, self.told_bytes - self.received_bytes)
            if started < run.count:
                self.received_bytes = self.told_bytes
                self.start(0, 0)
        self.received_bytes += size
        if self.received_bytes >= self.told_bytes:
            # The peer waits now: whatever little is free is due.
            self.moved = True

    def take(self, cost: int, fds: int) -> None:
        """A message was taken over."""
        self.moved = True
        self.taken_bytes += cost
        self.taken_fds += fds

    def write_off(self, held_bytes: int) -> None:
        """The link has ended: of all that was started only so much is still held."""
        self.taken_bytes = self.received_bytes - held_bytes
        self.taken_fds = self.received_fds

    def due(self) -> bool:
        """Whether the peer should be told that it may send more."""
        self.moved = False
        fresh = self.taken_bytes + self.size_bytes - self.told_bytes
        if fresh > 0 and 2 * fresh >= self.size_bytes - self.held_bytes:
            return True
        fresh_fds = self.taken_fds + self.size_fds - self.told_fds
        return fresh_fds > 0 and 2 * fresh_fds >= self.size_fds - self.held_fds

    def grant(self) -> tuple[int, int]:
        """The totals to tell the peer now."""
        self.told_bytes = max(self.told_bytes, self.taken_bytes + self.size_bytes)
        self.told_fds = max(self.told_fds, self.taken_fds + self.size_fds)
        return self.told_bytes, self.told_fds
