"""How much a client may still send: the arithmetic of docs/wire.md, "Windows", for one class of messages."""

from __future__ import annotations

from typing import final

from ..errors import ProtocolError

__all__ = ["Window"]


@final
class Window:
    """Bytes and fds that were sent, and that may be: a message may start while less was sent than was granted."""

    __slots__ = ("granted_bytes", "granted_fds", "sent_bytes", "sent_fds", "sent_messages", "taken_messages")

    def __init__(self, granted_bytes: int, granted_fds: int) -> None:
        self.granted_bytes = granted_bytes
        self.granted_fds = granted_fds
        self.sent_bytes = 0
        self.sent_fds = 0
        #: of messages that nothing answers: queued, and known to be taken over
        self.sent_messages = self.taken_messages = 0

    def grant(self, granted_bytes: int, granted_fds: int) -> None:
        """New totals came; ProtocolError when they fall."""
        if granted_bytes < self.granted_bytes or granted_fds < self.granted_fds:
            raise ProtocolError("the broker took back a window that it had granted")
        self.granted_bytes = granted_bytes
        self.granted_fds = granted_fds
