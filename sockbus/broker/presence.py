"""Who has heard of whom: a peer is introduced to a link before its first frame there, and gone after its last one.

``Presence`` counts what of a peer is still somewhere in the broker (parcels that wait, replies that wait), so that GONE
comes when nothing of it remains, however long after its end that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ..protocol.frame import Kind, control
from ..protocol.handshake import peer_body

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Presence"]


@final
class Presence:
    """What others know of one link, and it of others."""

    __slots__ = ("_audience", "_known", "_link", "_remains")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._remains = 0
        # Links that this peer was introduced to, and peers that were introduced to this link: each the other's mirror.
        self._audience: dict[Link, None] = {}
        self._known: dict[Link, None] = {}

    def introduce_to(self, link: Link) -> None:
        """Tell a link who this is, before the first frame of this peer's on it."""
        if link not in self._audience:
            self._audience[link] = None
            link.presence._known[self._link] = None
            link.put_control(control(Kind.PEER, peer_body(self._link.peer), correlation=self._link.number))

    def keep(self) -> None:
        """Something of this peer waits in the broker."""
        self._remains += 1

    def let_go(self) -> None:
        """It has left the broker."""
        self._remains -= 1
        self._say_gone()

    def end(self) -> None:
        """The link has ended."""
        for origin in self._known:
            origin.presence._audience.pop(self._link, None)
        self._known.clear()
        self._say_gone()

    def _say_gone(self) -> None:
        if self._link.gone and not self._remains:
            frame = control(Kind.GONE, correlation=self._link.number)
            for link in self._audience:
                link.presence._known.pop(self._link, None)
                link.put_last(frame)
            self._audience.clear()
