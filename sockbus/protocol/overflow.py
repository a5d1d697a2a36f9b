"""What a subscription does with more than it may hold: the words of docs/wire.md, "Overflow"."""

from __future__ import annotations

import enum

__all__ = ["Overflow"]


class Overflow(enum.StrEnum):
    """Who has to go, or to wait, when a queue is full."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    LATEST = "latest"
    DISCONNECT = "disconnect"
