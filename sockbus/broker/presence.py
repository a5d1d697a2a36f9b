"""Who has heard of whom: a peer is introduced to a link before its first frame there, and gone after its last one.

``Presence`` counts what of a peer is still somewhere in the broker (parcels, kept messages and replies that wait), so
that GONE comes when nothing of it remains, however long after its end that is. It outlives the link, and is all that
has to: what is kept of a peer that has gone does not keep its link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ..message import Peer
from ..protocol.frame import Kind, control
from ..protocol.handshake import peer_body

if TYPE_CHECKING:
    from ..transport.base import Transport
    from .link import Link
    from .parcel import Tally

__all__ = ["Presence"]


@final
class Presence:
    """What others know of one peer, and it of others. ``link`` is None when it has ended, and for the broker itself."""

    __slots__ = ("_audience", "_known", "_remains", "link", "peer")

    def __init__(self, link: Link | None, peer: Peer) -> None:
        self.link = link
        self.peer = peer
        self._remains = 0
        # Links that this peer was introduced to, and peers that were introduced to this link: each the other's mirror.
        self._audience: dict[Link, None] = {}
        self._known: dict[Presence, None] = {}

    @classmethod
    def of(cls, link: Link, number: int, transport: Transport) -> Presence:
        """Of who is at the other end; its name is not known yet."""
        pid, uid, gid = transport.credentials() or (None, None, None)
        return cls(link, Peer(number, None, transport.name, uid, gid, pid))

    def introduce_to(self, link: Link) -> None:
        """Tell a link who this is, before the first frame of this peer's on it."""
        if link not in self._audience:
            self._audience[link] = None
            link.presence._known[self] = None
            link.put_control(control(Kind.PEER, peer_body(self.peer), correlation=self.peer.id))

    def receipt(self, tally: Tally) -> None:
        """What became of a publish of this peer's, if it is still there to hear of it."""
        if self.link is not None:
            counts = [tally.matched, tally.delivered, tally.dropped, tally.without_fds]
            self.link.put_control(control(Kind.RECEIPT, counts, correlation=tally.number))

    def keep(self) -> None:
        """Something of this peer waits in the broker."""
        self._remains += 1

    def let_go(self) -> None:
        """It has left the broker."""
        self._remains -= 1
        self._say_gone()

    def end(self) -> None:
        """The link has ended."""
        link, self.link = self.link, None
        if link is not None:
            for origin in self._known:
                origin._audience.pop(link, None)
            self._known.clear()
        self._say_gone()

    def _say_gone(self) -> None:
        if self.link is None and not self._remains:
            frame = control(Kind.GONE, correlation=self.peer.id)
            for link in self._audience:
                link.presence._known.pop(self, None)
                link.put_last(frame)
            self._audience.clear()
