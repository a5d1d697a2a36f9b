"""A log that a hostile peer cannot flood.

Each subject may speak ``BURST`` times in ``PERIOD`` seconds; what is held back is counted and said with the next line.
"""

from __future__ import annotations

import logging
import time
from typing import final

__all__ = ["QuietLog"]

BURST = 10
PERIOD = 10.0
SUBJECTS = 1024


@final
class QuietLog:
    """Lines about subjects (a user, a listener), rate-limited for each."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)
        self._said: dict[str, tuple[float, int]] = {}  # subject → start of its period, lines in it

    def say(self, subject: str, line: str, *values: object) -> None:
        """One line at level WARNING, unless the subject has said enough."""
        now = time.monotonic()
        start, count = self._said.get(subject, (now, 0))
        if now - start >= PERIOD:
            if count > BURST:
                self._log.warning("%s: %d more lines like this were held back", subject, count - BURST)
            start, count = now, 0
        if len(self._said) >= SUBJECTS and subject not in self._said:
            self._said.clear()
        self._said[subject] = start, count + 1
        if count < BURST:
            self._log.warning(line, *values)
