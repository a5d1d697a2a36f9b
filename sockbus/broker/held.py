"""What a subscription that drops keeps of a parcel: taken over from its publisher, and charged to the subscriber."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from ..fd import SharedFds
from ..protocol.inbox import fit
from .parcel import Delivery, Tally

if TYPE_CHECKING:
    pass

__all__ = ["OVERHEAD", "Held"]

# Bytes that keeping anything takes besides its frames, in the link's account: or a queue of messages that are nearly
# empty would take many times what it may. A message was measured to take 310 to 480.
OVERHEAD = 384
_ANY = 1 << 62


@final
class Held:
    """Messages of one run in one slice, or the frames of one message. Takes a hold of its own on what it keeps.

    ``cost``: bytes that are kept, with what was dropped or delivered of them; ``overhead``: what that takes beyond.

    Of the ``count`` messages in the slice ``left`` are still here, from ``at`` on, and the first ``skipped`` of those
    were dropped: where they end is looked up when it matters, for a flood must not cost a look at each of its messages.
    ``end`` is the number behind that of the last one.
    """

    #: kept values wait elsewhere
    retained = False

    __slots__ = (
        "at", "cost", "count", "end", "fds", "frames", "left", "nfds", "overhead", "presence", "skipped", "tally",
    )  # fmt: skip

    def __init__(
        self, source: Delivery, frames: Sequence[bytes], count: int, end: int, *, nfds: int = 0, tally: Tally | None
    ) -> None:
        self.presence = source.presence
        self.frames = frames
        self.count = self.left = count
        self.at = self.skipped = 0
        self.end = end
        self.fds: SharedFds | None = source.fds if nfds else None
        self.nfds = nfds
        self.tally = tally
        self.cost = source.cost if source.count == 1 else len(frames[0])
        self.overhead = OVERHEAD
        if source.count == 1 and len(frames[0]) != self.cost:
            # What pieces have in front of them is not in the cost.
            self.overhead += sum(map(len, frames)) - self.cost
        self.presence.keep()
        if self.fds is not None:
            self.fds.hold()

    @property
    def messages(self) -> int:
        """How many there are."""
        return self.left - self.skipped

    @property
    def is_untidy(self) -> bool:
        """Whether bytes are kept of messages that are not here any more."""
        return self.skipped > 0 or self.at > 0

    def tidy(self) -> None:
        """Let go of those bytes."""
        data = self.frames[0]
        _, at = fit(data, self.at, len(data), self.skipped, _ANY)
        data = data[at:]
        self.count = self.left = self.messages
        self.frames, self.cost = (data,), len(data)
        self.at = self.skipped = 0

    def release(self) -> None:
        """Let go of all of it."""
        if self.fds is not None:
            self.fds.release()
        self.presence.let_go()
