"""What a subscription that drops keeps of parcels: taken over from their publishers, and charged to its link.

A ``Held`` is a part of one parcel. A ``Queue`` is all that one subscription keeps, in order, and has the sums; what is
dropped of it, and when, is the policy's (``lossy``).
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from ..fd import SharedFds
from ..protocol.inbox import fit
from .parcel import Delivery, Tally

if TYPE_CHECKING:
    from .holdings import Holdings

__all__ = ["OVERHEAD", "Held", "Queue"]

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


@final
class Queue:
    """What one subscription keeps; ``entries`` has it by topic where only the newest of each is kept, else by number.

    ``messages``, ``bytes``, ``fds``: the sums, as its capacity counts them.
    """

    __slots__ = ("_charged", "_holdings", "_with_fds", "bytes", "entries", "fds", "messages")

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self.entries: collections.OrderedDict[bytes | int, Held] = collections.OrderedDict()
        self.messages = self.bytes = self.fds = 0
        # Of the link's bytes; and what has descriptors, with its key.
        self._charged = 0
        self._with_fds: collections.OrderedDict[Held, bytes | int] = collections.OrderedDict()

    @property
    def oldest(self) -> Held | None:
        """What comes next; None when nothing is kept."""
        return next(iter(self.entries.values()), None)

    def put(self, key: bytes | int, held: Held) -> None:
        """Keep this behind the others."""
        self.entries[key] = held
        self.messages += held.messages
        self.bytes += held.cost
        self.fds += held.nfds
        if held.nfds:
            self._with_fds[held] = key
        self._charge(held.cost + held.overhead, held.nfds)

    def release(self, held: Held) -> None:
        """Let go of one that was taken out of ``entries``."""
        self.messages -= held.messages
        self.bytes -= held.cost
        self.fds -= held.nfds
        if held.nfds:
            del self._with_fds[held]
        self._charge(-held.cost - held.overhead, -held.nfds)
        held.release()

    def pop_with_fds(self) -> Held | None:
        """Take out the oldest that has descriptors, if there is one, to be released."""
        if not self._with_fds:
            return None
        held, key = next(iter(self._with_fds.items()))
        del self.entries[key]
        return held

    def skip(self, held: Held, messages: int) -> None:
        """So many more at the front of the oldest are not here any more; where they end is looked up by ``tidy``."""
        held.skipped += messages
        self.messages -= messages

    def taken(self, held: Held, messages: int, after: int) -> None:
        """So many at the front of the oldest were delivered, up to ``after``."""
        held.left -= messages
        held.at = after
        self.messages -= messages

    def tidy(self, held: Held) -> None:
        """Let go of the bytes of what is not here any more."""
        gone = held.cost
        held.tidy()
        gone -= held.cost
        self.bytes -= gone
        self._charge(-gone, 0)

    def can_link_hold(self, fds: int) -> bool:
        """Whether the link may hold one more message, or might if nothing were kept here."""
        holdings = self._holdings
        return holdings.has_room(fds) or holdings.would_have_room(fds, self._charged, self.fds)

    def _charge(self, size: int, fds: int) -> None:
        self._charged += size
        self._holdings.add(size, fds)
