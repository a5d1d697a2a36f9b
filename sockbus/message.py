"""What a user holds: messages, and the values around them.

A ``Message`` keeps the bytes as they came and decodes them on first use, so that a message that is only passed on
or counted costs nothing more. It owns its file descriptors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, final

from .fd import Fd, HasFileno, close_each
from .payload import Headers, decode_headers, decode_payload

__all__ = ["Message", "Peer", "Receipt", "Reply", "Will"]


@final
@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent a message, as the broker knows it (SO_PEERCRED at connect, unix(7)).

    ``id`` is never used for another peer while the broker lives; ``name`` is what the peer calls itself. ``uid``,
    ``gid`` and ``pid`` are None over TCP.
    """

    id: int
    name: str | None
    transport: str
    uid: int | None
    gid: int | None
    pid: int | None


@final
@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a published message, in numbers of matching subscriptions (a group counts as one).

    ``delivered``: credit was spent and the message entered the subscriber's outbox at the broker; ``dropped``:
    its ``overflow`` dropped it, or the subscription ended before; ``without_fds``: the message has fds and the
    subscriber's link carries none.
    """

    matched: int
    delivered: int
    dropped: int
    without_fds: int


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler returns where the reply has headers or fds (borrowed until the reply has left)."""

    payload: object = None
    headers: Headers | None = None
    fds: Sequence[int | HasFileno] = field(default=())


@final
@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes in a program's name when that goes without leaving its bus: killed, or cut off.

    ``retain``: it is kept as the topic's last value.
    """

    topic: str
    payload: object = None
    retain: bool = field(default=False, kw_only=True)


@final
class Message:
    """One message as it came.

    ``topic``: str; ``data``: the payload as msgpack bytes; ``fds``: descriptors, owned by this message until it
    is closed or dropped; ``fds_missing``: how many the link could not carry; ``sender``: Peer; ``lost``: how many
    messages of this subscription were lost just before this one, as far as the broker could count them;
    ``interrupted``: whether the connection was, just before this one, so that more may have been missed.
    """

    __slots__ = (
        "_headers", "_interrupted", "_payload", "_retained", "data", "fds", "fds_missing", "lost", "sender", "topic",
    )  # fmt: skip

    _headers: Headers | bytes
    _payload: Any
    # Set where they are true: most messages are neither, and should pay nothing for those that are.
    _interrupted: bool
    _retained: bool

    def __init__(
        self,
        topic: str,
        data: bytes,
        sender: Peer,
        fds: tuple[Fd, ...] = (),
        fds_missing: int = 0,
        headers: bytes = b"",
        lost: int = 0,
    ) -> None:
        self.topic = topic
        self.data = data
        self.sender = sender
        self.fds = fds
        self.fds_missing = fds_missing
        self.lost = lost
        self._headers = headers

    @property
    def payload(self) -> Any:
        """The payload, decoded on first use; PayloadError when what the sender sent is not msgpack."""
        try:
            return self._payload
        except AttributeError:
            self._payload = decode_payload(self.data)
            return self._payload

    @property
    def headers(self) -> Headers:
        """The headers, an empty dict where there are none."""
        if isinstance(self._headers, bytes):
            self._headers = decode_headers(self._headers, 1 << 16) if self._headers else {}
        return self._headers

    @property
    def interrupted(self) -> bool:
        """Whether the connection was lost, and made anew, just before this message."""
        return getattr(self, "_interrupted", False)

    @interrupted.setter
    def interrupted(self, interrupted: bool) -> None:
        self._interrupted = interrupted

    @property
    def retained(self) -> bool:
        """Whether this is the last value of its topic from before the subscription, and not published just now."""
        return getattr(self, "_retained", False)

    @retained.setter
    def retained(self, retained: bool) -> None:
        self._retained = retained

    def close(self) -> None:
        """Close the message's fds; those handed on by ``Fd.detach``, ``open`` or ``socket`` stay open."""
        close_each(self.fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> object:
        for fd in self.fds:
            # Refuses, also where a shallow copy would share it.
            fd.__reduce__()
        return super().__getstate__()

    def __repr__(self) -> str:
        fds = f", {len(self.fds)} fds" if self.fds else ""
        return f"<Message {self.topic!r} from peer {self.sender.id}, {len(self.data)} bytes{fds}>"
