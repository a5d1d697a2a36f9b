"""A log that a hostile peer cannot flood.

Each subject may speak ``BURST`` times in ``PERIOD`` seconds. What is held back beyond is counted, and said in one line
when that time is over: how much it was, and what it was about, as far as one line should go.
"""

from __future__ import annotations

import logging
import time
from typing import final

__all__ = ["QuietLog"]

BURST = 10
PERIOD = 10.0
SUBJECTS = 1024
# Of the names in the line about what was held back; some fifty of usual length.
NAMES_CHARACTERS = 2000


@final
class _Period:
    """What one subject has said since ``start``, and what was held back of it."""

    __slots__ = ("characters", "held", "lines", "names", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.lines = self.held = 0
        self.names: list[str] = []
        #: of the names
        self.characters = 0


@final
class QuietLog:
    """Lines about subjects (a user, a listener, what a user's subscriptions do), rate-limited for each."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)
        self._periods: dict[str, _Period] = {}

    def say(self, subject: str, line: str, *values: object, name: str = "") -> bool:
        """One line at level WARNING, unless the subject has said enough.

        ``name``: what it is about. Whether the log has that, or will have it with what was held back.
        """
        now = time.monotonic()
        period = self._periods.get(subject)
        if period is not None and now - period.start >= PERIOD:
            self._end(subject)
            period = None
        if period is None:
            if len(self._periods) >= SUBJECTS:
                self.close()
            period = self._periods[subject] = _Period(now)
        if period.lines < BURST:
            period.lines += 1
            self._log.warning(line, *values)
            return True
        period.held += 1
        if not name or period.characters + len(name) > NAMES_CHARACTERS:
            return False
        period.characters += len(name)
        period.names.append(name)
        return True

    def sum_up(self) -> None:
        """Say what was held back where the time for it is over."""
        now = time.monotonic()
        for subject in [each for each, period in self._periods.items() if now - period.start >= PERIOD]:
            self._end(subject)

    def close(self) -> None:
        """Say all that was held back."""
        for subject in list(self._periods):
            self._end(subject)

    def _end(self, subject: str) -> None:
        period = self._periods.pop(subject)
        if not period.held:
            return
        about = f", about {', '.join(period.names)}" if period.names else ""
        if period.names and period.held > len(period.names):
            about += f" and {period.held - len(period.names)} others"
        self._log.warning("%s: %d more lines like this were held back%s", subject, period.held, about)
