"""What a bus is at: connected, or on the way there."""

from __future__ import annotations

import enum

__all__ = ["BusState"]


class BusState(enum.StrEnum):
    """``bus.state``; each is equal to its name in lower case, as text.

    CONNECTING: an attempt is under way; CONNECTED; WAITING: the connection was lost, and the next attempt is due in a
    moment; CLOSED: the bus was left, or has lost its connection for good.
    """

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    CLOSED = "closed"
