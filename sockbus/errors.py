"""The exception tree.

    SockbusError
    ├── ConnectError                 no connection could be made
    ├── ConnectionLost               the connection, or the bus, is gone
    │   └── BrokerClosing            … for the broker stops, and has said so
    ├── ProtocolError                the other side broke docs/wire.md
    │   └── VersionMismatch          … or speaks another version of it
    ├── InvalidTopic    (ValueError)  not a topic, or not a pattern
    ├── PayloadError    (TypeError)   cannot be encoded or decoded
    ├── LimitExceeded                a named limit was reached
    │   ├── MessageTooLarge
    │   └── TooManyFds
    ├── PermissionDenied             not allowed to this peer
    ├── SubscriptionStalled          a subscription was ended, for its messages were not taken
    └── RequestError                 a request ended without a reply
        ├── NoResponders
        ├── ResponderLost
        ├── RequestTimeout (TimeoutError)
        └── RemoteError              the handler at the other end raised

Each carries one sentence that names the thing, the cause and the remedy, and a ``code``: the word that stands for
it in an ``ERROR`` frame. This room turns codes into errors and back; it knows nothing else of the wire.
"""

from __future__ import annotations

from typing import ClassVar, final

__all__ = [
    "BrokerClosing",
    "ConnectError",
    "ConnectionLost",
    "InvalidTopic",
    "LimitExceeded",
    "MessageTooLarge",
    "NoResponders",
    "PayloadError",
    "PermissionDenied",
    "ProtocolError",
    "RemoteError",
    "RequestError",
    "RequestTimeout",
    "ResponderLost",
    "SockbusError",
    "SubscriptionStalled",
    "TooManyFds",
]


class SockbusError(Exception):
    """What every error of sockbus derives from."""

    code: ClassVar[str] = "error"


@final
class ConnectError(SockbusError):
    """No broker could be reached; the text names every address and transport tried, and why each failed."""

    code = "connect"


class ConnectionLost(SockbusError):
    """The connection to the broker has ended, or the bus was left: nothing more goes in or out."""

    code = "closed"


@final
class BrokerClosing(ConnectionLost):
    """The broker has said goodbye: it stops."""

    code = "closing"


class ProtocolError(SockbusError):
    """The other side sent what ``docs/wire.md`` forbids."""

    code = "protocol"


@final
class VersionMismatch(ProtocolError):
    """The two sides speak different versions of the protocol."""

    code = "version"


@final
class InvalidTopic(SockbusError, ValueError):
    """Not a topic, or not a pattern."""

    code = "topic"


@final
class PayloadError(SockbusError, TypeError):
    """A payload or its headers cannot be encoded, or what came cannot be decoded."""

    code = "payload"


class LimitExceeded(SockbusError):
    """A named limit was reached."""

    code = "limit"


@final
class MessageTooLarge(LimitExceeded):
    """More payload bytes than ``message_bytes``, or more header bytes than ``header_bytes``."""

    code = "too-large"


@final
class TooManyFds(LimitExceeded):
    """More file descriptors than a message, or this link, may carry."""

    code = "too-many-fds"


@final
class PermissionDenied(SockbusError):
    """Not allowed to this peer."""

    code = "permission"


@final
class SubscriptionStalled(SockbusError):
    """A subscription was ended because its messages were not taken; the bus goes on."""

    code = "stalled"


class RequestError(SockbusError):
    """A request ended without a reply."""

    code = "request"


@final
class NoResponders(RequestError):
    """Nobody serves the topic."""

    code = "no-responders"


@final
class ResponderLost(RequestError):
    """The server went away before it replied."""

    code = "responder-lost"


@final
class RequestTimeout(RequestError, TimeoutError):
    """No reply came in time. ``topic`` and ``timeout`` (seconds) say which."""

    code = "timeout"

    def __init__(self, topic: str, timeout: float, why: str = "") -> None:
        # One argument only: with two, OSError, which TimeoutError derives from, takes them for errno and strerror.
        super().__init__(
            f"no reply to the request on {topic!r} within {timeout:g} s"
            + (f": {why}" if why else "; is its server busy? a longer timeout waits longer")
        )
        self.topic = topic
        self.timeout = timeout
        self._why = why

    def __reduce__(self) -> tuple[type[RequestTimeout], tuple[str, float, str], dict[str, object]]:
        return type(self), (self.topic, self.timeout, self._why), vars(self)


@final
class RemoteError(RequestError):
    """The handler raised: ``type`` is the name of the exception's class there, ``text`` its message."""

    code = "remote"

    def __init__(self, type: str, text: str) -> None:
        super().__init__(type, text)
        self.type = type
        self.text = text

    def __str__(self) -> str:
        return f"{self.type}: {self.text}" if self.text else self.type


_ON_THE_WIRE: tuple[type[SockbusError], ...] = (
    ProtocolError,
    VersionMismatch,
    InvalidTopic,
    PayloadError,
    LimitExceeded,
    MessageTooLarge,
    TooManyFds,
    PermissionDenied,
    NoResponders,
    ResponderLost,
    SubscriptionStalled,
)
_BY_CODE = {cls.code: cls for cls in _ON_THE_WIRE}


def from_code(code: str, text: str) -> SockbusError:
    """The error that an ``ERROR`` frame stands for; a code that this version does not know gives a SockbusError."""
    return _BY_CODE.get(code, SockbusError)(text)
