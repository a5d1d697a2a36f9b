"""What a bus is at, from its first attempt to its end, and who waits for a change.

States that follow each other differ. Who waits is given one that is not what it saw: a change that is over before
anybody looked is not that of an event loop's task to see, and is of a thread's, which remembers.
"""

from __future__ import annotations

from typing import NamedTuple, final

from ..state import BusState
from .need import Gate, Steps

__all__ = ["Seen", "Standing"]


class Seen(NamedTuple):
    """What somebody saw: the state after so many changes."""

    changes: int
    state: BusState


@final
class Standing:
    """The state of one bus. ``changed`` is where those wait who want to know when it is another one."""

    def __init__(self) -> None:
        self.now = Seen(0, BusState.CONNECTING)
        self.changed = Gate()
        self._before = self.now

    def enter(self, state: BusState) -> None:
        """It is this one now, and stays for ever when it is CLOSED."""
        if state is not self.now.state and self.now.state is not BusState.CLOSED:
            self._before, self.now = self.now, Seen(self.now.changes + 1, state)
            self.changed.open_all()

    def other_than(self, state: BusState) -> Steps[BusState]:
        """Wait until it is another one, and give that; CLOSED at once."""
        while self.now.state is state and state is not BusState.CLOSED:
            yield self.changed
        return self.now.state

    def after(self, seen: Seen) -> Steps[Seen]:
        """Wait until it has changed since ``seen``, and give a state that is another one; CLOSED at once.

        That is the one now, or where that is the same again, the one before, behind which the one now comes next.
        """
        while self.now.changes == seen.changes and seen.state is not BusState.CLOSED:
            yield self.changed
        return self._before if self.now.state is seen.state is not BusState.CLOSED else self.now
