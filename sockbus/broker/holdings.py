"""What the subscriptions of one link keep that drop what they cannot take: charged to the link, not to publishers."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from .hub import Hub
    from .lossy import Lossy

__all__ = ["Holdings"]


@final
class Holdings:
    """The account of one link. One message may exceed ``link_queue_bytes``, and one ``link_fds``."""

    __slots__ = ("_hub", "_untidy", "bytes", "fds")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._untidy: dict[Lossy, None] = {}
        self.bytes = self.fds = 0

    def has_room(self, fds: int) -> bool:
        """Whether one more message may be kept."""
        limits = self._hub.limits
        while self.bytes >= limits.link_queue_bytes and self._untidy:
            # Messages that are gone take no room from others.
            self._untidy.popitem()[0].tidy()
        return self.would_have_room(fds, 0, 0)

    def would_have_room(self, fds: int, size_gone: int, fds_gone: int) -> bool:
        """``has_room``, if so much of what is kept were gone."""
        limits = self._hub.limits
        return self.bytes - size_gone < limits.link_queue_bytes and not (fds and self.fds - fds_gone >= limits.link_fds)

    def add(self, size: int, fds: int) -> None:
        """So much more is kept, or less."""
        self.bytes += size
        self.fds += fds
        self._hub.queued_bytes += size

    def note_untidy(self, subscription: Lossy) -> None:
        """Let it tidy up within a second, or when room is needed."""
        self._untidy[subscription] = None
        self._hub.untidy[self] = None

    def tidy(self) -> None:
        """Keep nothing of messages that are gone."""
        while self._untidy:
            self._untidy.popitem()[0].tidy()
