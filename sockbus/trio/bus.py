"""What a Trio program holds: ``connect`` and ``Bus``."""

from __future__ import annotations

from typing import final

import trio

from ..client.event_loop import Connect, EventLoopBus
from .waits import Waits

__all__ = ["Bus", "connect"]


@final
class Bus(EventLoopBus):
    """A connection to a broker, as ``connect`` gives it. Any number of tasks may use it at once.

    When the broker goes, calls and iterations raise ConnectionLost.
    """

    _waits_type = Waits

    # What it does without waiting is not to be torn by a Ctrl-C either.
    publish = trio.lowlevel.enable_ki_protection(EventLoopBus.publish)


@final
class connect(Connect[Bus]):  # noqa: N801  # used like a function
    """Connect to a broker: an async context manager that gives a ``Bus``.

    ``address`` is text or an ``Address``; None is ``$SOCKBUS_ADDRESS``, else the user's default bus. ``name`` is what
    others see as ``sender.name``. ``will`` is published in this program's name when it goes without leaving the block:
    when it is killed, or cut off. The first connection is tried once: ConnectError says where and why it failed.
    Leaving the block waits until the broker has taken over everything published, 5 s at most, and then raises
    LimitExceeded. A block left by an exception lets that through, with a note where leaving failed as well; one that
    is cancelled does not wait.
    """

    _bus_type = Bus
