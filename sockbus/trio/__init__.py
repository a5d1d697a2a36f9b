"""The bus for Trio programs: ``async with connect() as bus``.

A runtime only waits; what a connection means is in ``protocol.session``, and what is done between two waits in
``transport.channel``. ``bus`` is what a program holds, ``subscription`` and ``workers`` are its two ways of taking,
``waits`` is all the waiting.
"""

from __future__ import annotations

from .bus import Bus, connect
from .subscription import Subscription

__all__ = ["Bus", "Subscription", "connect"]
