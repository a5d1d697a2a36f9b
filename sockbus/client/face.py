"""The part of a ``Bus`` that is the same in every runtime, down to the letter: who and where it is, and stays."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from ..message import Peer
from ..state import BusState
from .client import Client

__all__ = ["Face", "Staying"]


class Staying:
    """What is of one process, and neither goes to another nor is there twice. ``_stays`` is the whole sentence."""

    _stays: ClassVar[str]

    def __reduce__(self) -> NoReturn:
        raise TypeError(self._stays)


class Face(Staying):
    """What a program can read off its bus. Not for inheritance by programs."""

    _stays = (
        "a bus can be neither pickled nor copied: it is a connection of this process; pass its address, and connect "
        "there"
    )

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def address(self) -> str:
        """The road taken, e.g. "seqpacket:/run/user/1000/sockbus/seqpacket"."""
        return self._client.connecting.road

    @property
    def transport(self) -> str:
        """ "seqpacket", "stream" or "tcp"."""
        return self._client.channel.transport.name

    @property
    def peer(self) -> Peer:
        """Who the broker takes this program for."""
        return self._client.session.peer

    @property
    def state(self) -> BusState:
        """Whether there is a connection, or one is on its way."""
        return self._client.state

    @property
    def in_doubt(self) -> int:
        """How many messages that were published without a receipt may be lost, and are never sent again: they were
        written to connections that were lost before they could be known to have arrived, or still waited for one when
        the bus ended.
        """
        return self._client.in_doubt

    def __repr__(self) -> str:
        return f"<Bus {self.address}>"
