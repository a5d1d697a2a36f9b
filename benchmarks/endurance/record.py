"""What a process writes down of what it invoked and what it saw: one JSON object a line, in a file of its own.

A line is written by one call, before or after what it tells of, so that whoever is killed leaves all that it had seen;
the last line may be torn. Times are of the clock that all processes of a machine share (CLOCK_MONOTONIC), in
nanoseconds.

What a publisher writes:

- ``begin`` publisher, number, topic, retain: a publish is about to be called; numbers rise by one.
- ``done`` publisher, number, receipt: it has returned, with [matched, delivered, dropped] where one was asked for.
- ``refused`` publisher, number: it raised, and was not sent. ``in doubt``: it raised, and may have been sent.
- ``confirmed`` publisher, number: everything up to this number is with the broker (``flush``).
- ``interrupted`` publisher, number, in_doubt: the connection was lost; so many of those up to this number may be lost.
- ``wrong reply`` publisher, asked, reply: a request for an echo was answered with something else.
- ``left`` publisher: it has stopped, and everything else is with the broker.

What a subscriber writes:

- ``subscribe`` subscription, pattern, overflow: is about to be called.
- ``in force`` subscription: it is, or is again.
- ``take`` subscription, publisher, number, topic, lost, interrupted, retained: a message came.
- ``drain`` subscription: is about to be called.
- ``end`` subscription, how, lost, interrupted: nothing more comes: "drained" or "stalled", with its totals.

What is written of brokers: ``down``, before one is killed.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, final

__all__ = ["Event", "Record", "read"]

Event = dict[str, Any]


@final
class Record:
    """A file that is written to."""

    def __init__(self, path: str | Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, event: str, **what: object) -> None:
        """Write one line."""
        line = json.dumps({"event": event, "at": time.monotonic_ns(), **what})
        os.write(self._fd, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read(path: str | Path) -> list[Event]:
    """The whole lines of a file, in order."""
    *lines, _ = Path(path).read_bytes().split(b"\n")
    return [json.loads(line) for line in lines]
