"""What can be seen of a broker from outside: its descriptors, its processor time, its log, its status page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from tests.broker.healthy import FILE
from tests.broker.raw import PATIENCE, Raw
from tests.brokers import BrokerProcess

__all__ = ["cpu_seconds", "descriptors", "eventually", "log_lines", "resident_bytes", "status"]

FIRST_PAUSE = 0.001  # seconds; each pause is twice the last, up to a fiftieth of a second
_TICKS = os.sysconf("SC_CLK_TCK")


def eventually(look: Callable[[], object]) -> None:
    """Look again until it is true; AssertionError when it does not become so. For what sends no event."""
    deadline = time.monotonic() + PATIENCE
    pause = FIRST_PAUSE
    while not (found := look()):
        assert time.monotonic() < deadline, f"it stayed {found!r}"
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def descriptors(broker: BrokerProcess) -> list[str]:
    """What the broker's descriptors point at, less the files that a healthy pair is passing."""
    found = []
    for name in os.listdir(f"/proc/{broker.pid}/fd"):
        try:
            target = os.readlink(f"/proc/{broker.pid}/fd/{name}")
        except FileNotFoundError:
            continue  # closed since
        if f"memfd:{FILE}" not in target:
            found.append(target)
    return sorted(found)


def cpu_seconds(broker: BrokerProcess) -> float:
    """Processor time that it has used (proc(5), stat)."""
    with open(f"/proc/{broker.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(broker: BrokerProcess) -> int:
    """Memory that it has in use."""
    with open(f"/proc/{broker.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def log_lines(broker: BrokerProcess) -> list[str]:
    """What it has logged."""
    return broker.log.splitlines()


def status(broker: BrokerProcess, transport: str = "stream") -> dict[str, Any]:
    """The status page, asked for by a peer of its own."""
    with Raw(broker.address(transport)) as peer:
        page: dict[str, Any] = peer.request("$SYS.status")
    return page
