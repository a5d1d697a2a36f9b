"""What tests ask of a broker to know what it has done: its status page, and the descriptors of its process.

Waiting is for a state that must come, never for time to pass; each question is itself a request to the broker.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from tests.contract.runtime import PATIENCE

__all__ = ["Page", "fds_of", "first", "page", "settled", "total", "until"]

Page = dict[str, Any]


async def page(bus: Any) -> Page:
    """The broker's status."""
    payload: Page = (await bus.request("$SYS.status", timeout=PATIENCE)).payload
    return payload


async def until(bus: Any, condition: Callable[[Page], bool]) -> Page:
    """The first status that meets a condition."""
    while not condition(found := await page(bus)):
        pass
    return found


def first(found: Page, part: str, pattern: str) -> dict[str, Any]:
    """The row of a pattern in ``subscriptions`` or ``servers``; empty when there is none."""
    rows: list[dict[str, Any]] = found[part]
    return next((row for row in rows if row["pattern"] == pattern), {})


def total(found: Page, name: str) -> int:
    """One of the broker's totals."""
    return int(found["totals"][name])


def fds_of(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def settled(count: Callable[[], int], wanted: int) -> int:
    """A count, once it is as wanted; what it is otherwise when that does not come about in 10 s."""
    deadline = time.monotonic() + 10.0
    pause = 0.001
    while (found := count()) != wanted and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return found
