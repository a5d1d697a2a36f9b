"""The bus for programs without an event loop: ``with connect() as bus``, from any number of threads.

There is no thread but the program's own: whichever call has to wait reads what comes, for all of them (``waits``).
"""

from __future__ import annotations

from .bus import Bus
from .connect import connect
from .subscription import Subscription

__all__ = ["Bus", "Subscription", "connect"]
