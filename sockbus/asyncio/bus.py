"""What an asyncio program holds: ``connect`` and ``Bus``."""

from __future__ import annotations

from typing import final

from ..client.event_loop import Connect, EventLoopBus
from .waits import Waits

__all__ = ["Bus", "connect"]


@final
class Bus(EventLoopBus):
    """A connection to a broker, as ``connect`` gives it. Any number of tasks of its event loop may use it at once.

    When the broker goes, it connects again by itself as ``reconnect`` says; once there will be no other connection,
    calls and iterations raise ConnectionLost.
    """

    _waits_type = Waits


@final
class connect(Connect[Bus]):  # noqa: N801  # used like a function
    """Connect to a broker: an async context manager that gives a ``Bus``, which belongs to the running event loop.

    ``address`` is text or an ``Address``; None is ``$SOCKBUS_ADDRESS``, else the user's default bus. ``name`` is what
    others see as ``sender.name``. ``will`` is published in this program's name when it goes without leaving the block:
    when it is killed, or cut off. The first connection is tried once: ConnectError says where and why it failed.

    ``reconnect`` says what becomes of a lost connection: with "wait" it is connected again by itself, and calls wait
    for that, while publishes of up to ``buffer_bytes`` are kept for it; with "fail" calls raise ConnectionLost until it
    is there again; with None for good.

    Leaving the block waits until the broker has taken over everything published, 5 s at most, and then raises
    LimitExceeded. A block left by an exception lets that through, with a note where leaving failed as well; one that
    is cancelled does not wait.
    """

    _bus_type = Bus
