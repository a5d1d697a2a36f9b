"""One request on its way: the server that can take it, the call that it becomes, the reply that comes back.

Values with accounts; what happens to them is decided by the ``Switchboard`` in ``calls``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from ..fd import SharedFds

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Call", "Queue", "Reply", "Server"]

#: where requests on a topic wait; True: those with fds that not all servers can take, lest they hold up the others
Queue = tuple[str, bool]


@final
class Server:
    """One served pattern of one link; ``outstanding``, ``fds``: calls handed over and not answered, and their fds."""

    __slots__ = ("concurrency", "fds", "last_used", "link", "number", "outstanding", "pattern", "wanted")

    def __init__(self, link: Link, number: int, pattern: str, concurrency: int) -> None:
        self.link = link
        self.number = number
        self.pattern = pattern
        self.concurrency = concurrency
        self.outstanding = self.fds = 0
        self.last_used = 0
        #: queues of requests that this server could take, oldest first
        self.wanted: dict[Queue, None] = {}

    def progress(self) -> None:
        """Room came back to its link."""
        self.link.hub.switchboard.feed(self)


@final
class Call:
    """One request, from its arrival until it ends. ``server`` is None while it waits for one."""

    __slots__ = ("call_number", "cost", "ended", "fds", "frames", "link", "nfds", "number", "queue", "server", "topic")

    def __init__(
        self, link: Link, number: int, topic: str, frames: Sequence[bytes], cost: int, fds: SharedFds | None
    ) -> None:
        self.link = link
        self.number = number
        self.topic = topic
        self.frames = frames
        self.cost = cost
        self.fds = fds
        self.nfds = len(fds.fds) if fds is not None else 0
        self.queue: Queue = (topic, False)
        self.server: Server | None = None
        self.call_number = 0
        self.ended = False


@final
class Reply:
    """A reply on its way; ``origin`` is the server's link."""

    __slots__ = ("call", "cost", "fds", "frames", "nfds", "origin", "since")

    def __init__(
        self, call: Call, origin: Link, frames: Sequence[bytes], cost: int, fds: SharedFds | None, since: float
    ) -> None:
        self.call = call
        self.origin = origin
        self.frames = frames
        self.cost = cost
        self.fds = fds
        self.nfds = len(fds.fds) if fds is not None else 0
        self.since = since
