"""The bus for Trio programs: ``async with connect() as bus``.

A runtime only waits; what a connection means is in ``protocol.session``, and what calls do between two waits in
``client``. ``waits`` is all the waiting, ``workers`` are the tasks of handlers.
"""

from __future__ import annotations

from ..client.subscription import Subscription
from .bus import Bus, connect

__all__ = ["Bus", "Subscription", "connect"]
