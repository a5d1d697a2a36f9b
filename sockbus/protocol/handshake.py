"""How a link opens and ends: one transition table for both roles, and the bodies of HELLO and WELCOME.

Nothing but ``Handshake`` changes the state of a link, and it does so by the table alone; a pair that the table does not
have is a violation by the other side. docs/wire.md, "Handshake", is drawn from it.
"""

from __future__ import annotations

import enum
import unicodedata
from typing import NamedTuple

from ..errors import ProtocolError, VersionMismatch
from ..message import Peer
from . import body
from .frame import Kind, control
from .inbox import Run

__all__ = ["FDS", "HELLO_BYTES", "VERSION", "Handshake", "Hello", "Role", "State", "Welcome", "check_name"]

VERSION = 1
#: the feature: this side can receive file descriptors on this socket
FDS = "fds"
#: the largest HELLO, and the most that a broker reads before the handshake is done
HELLO_BYTES = 4096
MAX_NAME_BYTES = 255


class Role(enum.Enum):
    """Which side this is."""

    CLIENT = "client"
    BROKER = "broker"


class State(enum.Enum):
    """How far a link has come."""

    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


#: (role, state, kind received) → state. Kinds that are not named here are good in the state OPEN, and only there.
TRANSITIONS: dict[tuple[Role, State, Kind], State] = {
    (Role.BROKER, State.OPENING, Kind.HELLO): State.OPEN,
    (Role.BROKER, State.OPEN, Kind.GOODBYE): State.CLOSED,
    (Role.CLIENT, State.OPENING, Kind.WELCOME): State.OPEN,
    (Role.CLIENT, State.OPENING, Kind.ERROR): State.CLOSED,
    (Role.CLIENT, State.OPENING, Kind.GOODBYE): State.CLOSED,
    (Role.CLIENT, State.OPEN, Kind.ERROR): State.CLOSED,
    (Role.CLIENT, State.OPEN, Kind.GOODBYE): State.CLOSED,
}
LIFE_KINDS = frozenset((Kind.HELLO, Kind.WELCOME, Kind.ERROR, Kind.GOODBYE))


class Handshake:
    """The state of one link as this side sees it."""

    __slots__ = ("role", "state")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.OPENING

    def received(self, kind: Kind) -> None:
        """A frame came; ProtocolError when it may not come now."""
        if kind not in LIFE_KINDS:
            if self.state is State.OPEN:
                return
            raise ProtocolError(f"a {kind.name} frame came {_WHEN[self.state]}; the first frame is a HELLO")
        after = TRANSITIONS.get((self.role, self.state, kind))
        if after is None:
            raise ProtocolError(f"a {kind.name} frame came {_WHEN[self.state]}, where none belongs")
        self.state = after


_WHEN = {
    State.OPENING: "before the handshake was done",
    State.OPEN: "after the handshake",
    State.CLOSED: "after the end",
}


def check_name(name: str | None) -> str | None:
    """A peer's name as given; ValueError when it is empty, longer than 255 bytes or not printable."""
    if name is None:
        return None
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {name!r:.80} is not valid Unicode; name the peer in plain text") from error
    if not 0 < size <= MAX_NAME_BYTES or any(unicodedata.category(char)[0] == "C" for char in name):
        raise ValueError(f"the name {name!r:.80} is not 1 to {MAX_NAME_BYTES} bytes of printable text")
    return name


class Hello(NamedTuple):
    """What a client says first."""

    name: str | None
    features: tuple[str, ...]

    def encode(self) -> bytes:
        """The HELLO frame."""
        return control(Kind.HELLO, {"version": VERSION, "features": list(self.features), "name": self.name})

    @classmethod
    def decode(cls, run: Run) -> Hello:
        """From a HELLO frame; VersionMismatch, ProtocolError."""
        values = body.mapping(run)
        version = body.number(values, "version")
        if version != VERSION:
            raise VersionMismatch(
                f"protocol version {version} is not spoken here; this broker speaks version {VERSION}: "
                f"install the same release of sockbus on both sides"
            )
        try:
            name = check_name(body.optional_text(values, "name"))
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        return cls(name, body.words(values, "features"))


class Welcome(NamedTuple):
    """What a broker answers: who it takes the client for, and what it grants."""

    features: tuple[str, ...]
    you: Peer
    broker_pid: int
    broker_uid: int
    window: tuple[int, ...]
    limits: dict[str, int]

    def encode(self) -> bytes:
        """The WELCOME frame."""
        return control(
            Kind.WELCOME,
            {
                "version": VERSION,
                "features": list(self.features),
                "peer": self.you.id,
                "you": peer_body(self.you),
                "broker": {"pid": self.broker_pid, "uid": self.broker_uid},
                "window": list(self.window),
                "limits": self.limits,
            },
        )

    @classmethod
    def decode(cls, run: Run) -> Welcome:
        """From a WELCOME frame; ProtocolError."""
        values = body.mapping(run)
        version = body.number(values, "version")
        if version != VERSION:
            raise VersionMismatch(f"the broker answers in protocol version {version}; this client speaks {VERSION}")
        broker = body.submap(values, "broker")
        limits = body.submap(values, "limits")
        return cls(
            features=body.words(values, "features"),
            you=peer_from(body.number(values, "peer"), body.submap(values, "you")),
            broker_pid=body.number(broker, "pid"),
            broker_uid=body.number(broker, "uid"),
            window=body.numbers(values, "window", 7),
            limits={name: body.number(limits, name) for name in LIMIT_NAMES},
        )


#: the limits that a client has to know
LIMIT_NAMES = (
    "frame_bytes",
    "message_bytes",
    "header_bytes",
    "header_keys",
    "message_fds",
    "link_fds",
    "subscriptions",
    "servers",
    "pending_requests",
)


def peer_body(peer: Peer) -> dict[str, object]:
    """The body of a PEER frame."""
    return {
        "name": peer.name,
        "transport": peer.transport,
        "uid": peer.uid,
        "gid": peer.gid,
        "pid": peer.pid,
    }


def peer_from(number: int, values: dict[str, object]) -> Peer:
    """A Peer from the body of a PEER frame; ProtocolError."""
    return Peer(
        id=number,
        name=body.optional_text(values, "name"),
        transport=body.text(values, "transport"),
        uid=body.optional_number(values, "uid"),
        gid=body.optional_number(values, "gid"),
        pid=body.optional_number(values, "pid"),
    )
