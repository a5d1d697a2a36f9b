"""The broker's log on stderr: one line for each event, and never a reason to wait.

A pipe that nobody reads, or a terminal that was stopped, would block whoever writes to it, and with a broker all its
peers. So a line is written only where there is room for it; what was dropped is counted and told with the next line.
"""

from __future__ import annotations

import logging
import os
import select
from typing import final

from .output import ROOM, escaped

__all__ = ["start_logging"]

_STDERR = 2


def start_logging() -> logging.Logger:
    """Send what ``sockbus`` logs to stderr, from level INFO; returns its logger."""
    log = logging.getLogger("sockbus")
    log.setLevel(logging.INFO)
    log.addHandler(_Patient())
    log.propagate = False
    return log


@final
class _Patient(logging.Handler):
    """Lines with time and level, dropped while there is no room."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(_STDERR, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or count it."""
        line = escaped(self.format(record))
        if self._dropped:
            line += f" ({self._dropped} lines before this were dropped: nobody read them)"
        data = line.encode()[: ROOM - 1] + b"\n"
        try:
            if self._poll.poll(0) == [(_STDERR, select.POLLOUT)]:
                os.write(_STDERR, data)
                self._dropped = 0
                return
        except OSError:
            # Closed at the other end; a log that nobody can read must not end a broker.
            pass
        self._dropped += 1
