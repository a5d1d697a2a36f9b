"""The part of a ``Bus`` that is the same in every runtime, down to the letter: who and where it is, and stays."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from ..message import Peer
from ..transport.channel import Channel

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

    #: the road taken, e.g. "seqpacket:/run/user/1000/sockbus/seqpacket"
    address: str
    #: "seqpacket", "stream" or "tcp"
    transport: str

    def __init__(self, channel: Channel, address: str) -> None:
        self.address = address
        self.transport = channel.transport.name
        self._session = channel.session

    @property
    def peer(self) -> Peer:
        """Who the broker takes this program for."""
        return self._session.peer

    def __repr__(self) -> str:
        return f"<Bus {self.address}>"
