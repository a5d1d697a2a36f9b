"""errno → what to try next when a road to the broker is closed.

The first floor of falling back: a road is left for the next one only where the kernel says that it is not to be had.
A full backlog is no reason to leave it, only to wait (unix(7), connect(2)).
"""

from __future__ import annotations

import enum
import errno

__all__ = ["NextStep", "after_connect_error"]


class NextStep(enum.Enum):
    """What to do after a failed connect."""

    NEXT_ROAD = "next road"
    RETRY = "retry"
    GIVE_UP = "give up"


_NOT_TO_BE_HAD = frozenset(
    (
        errno.EPROTONOSUPPORT,  # no SEQPACKET in this system (macOS)
        errno.EPROTOTYPE,  # another type of socket on the path
        errno.ESOCKTNOSUPPORT,
        errno.ENOENT,  # no such path
        errno.ECONNREFUSED,  # nobody listens on it
    )
)


def after_connect_error(code: int) -> NextStep:
    """What to do after ``connect`` or ``socket`` failed with this errno."""
    if code in _NOT_TO_BE_HAD:
        return NextStep.NEXT_ROAD
    if code == errno.EAGAIN:
        return NextStep.RETRY
    return NextStep.GIVE_UP
