"""What steps wait for.

``Steps`` are a generator that yields needs. A runtime waits for each and resumes it, with what ``Resolve`` asked for.
It throws ``Expired`` in when a deadline of its has passed, and closes the steps when whoever waits is cancelled, so
that what was begun is taken back in the steps' own ``finally``.
"""

from __future__ import annotations

import collections
import enum
from collections.abc import Callable, Generator
from typing import Any, TypeVar, final

from ..protocol.pending import Pending
from ..transport.dial import Pause, Readable, Resolve, Writable

__all__ = ["TURN", "Expired", "Gate", "Need", "Steps", "Turn", "overdue", "resume"]

Wake = Callable[[], None]
T = TypeVar("T")


class Expired(Exception):
    """Thrown into steps when their ``seconds`` are over; they may go on all the same, without a deadline."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Turn(enum.Enum):
    """Let every other task run once; where no others are, nothing."""

    TURN = "turn"


TURN = Turn.TURN


@final
class Gate:
    """Where several wait until something may have become possible, first come, first served."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        #: those who wait, in their order: what to call
        self.waiting: collections.OrderedDict[Wake, None] = collections.OrderedDict()

    def attach(self, wake: Wake) -> None:
        """Call ``wake`` once, when it is its turn."""
        self.waiting[wake] = None

    def detach(self, wake: Wake) -> None:
        """Whoever waited does not any more; if it was woken already, that is the next one's."""
        try:
            del self.waiting[wake]
        except KeyError:
            self.open()

    def open(self, count: int = 1) -> int:
        """Wake the first ``count``; how many those were."""
        woken = min(count, len(self.waiting))
        for _ in range(woken):
            self.waiting.popitem(last=False)[0]()
        return woken

    def open_all(self) -> None:
        """Wake all that wait now."""
        self.open(len(self.waiting))


Need = Gate | Pending | Turn | Readable | Writable | Pause | Resolve
Steps = Generator[Need, Any, T]


def resume(steps: Steps[Any], found: object) -> Need:
    """Go on with what the last need gave: None, what getaddrinfo(3) found, or its OSError. StopIteration at the end."""
    return steps.throw(found) if isinstance(found, OSError) else steps.send(found)


def overdue(steps: Steps[T], expired: Expired) -> Steps[T]:
    """Steps whose time is over before they begin: they learn it where they first wait."""
    try:
        next(steps)
        need = steps.throw(expired)
        while True:
            yield need
            need = steps.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what StopIteration holds has no type
    finally:
        steps.close()
