"""sockbus: a message bus for the processes of one machine, where open files travel as easily as strings.

``from sockbus.trio import connect`` is where a program starts; here are the values that it meets, and the errors.
Importing this loads no runtime.
"""

from __future__ import annotations

from .address import Address
from .errors import (
    BrokerClosing,
    ConnectError,
    ConnectionLost,
    InvalidTopic,
    LimitExceeded,
    MessageTooLarge,
    NoResponders,
    PayloadError,
    PermissionDenied,
    ProtocolError,
    RemoteError,
    RequestError,
    RequestTimeout,
    ResponderLost,
    SockbusError,
    SubscriptionStalled,
    TooManyFds,
)
from .fd import Fd
from .message import Message, Peer, Receipt, Reply, Will
from .state import BusState

__all__ = [
    "Address",
    "BrokerClosing",
    "BusState",
    "ConnectError",
    "ConnectionLost",
    "Fd",
    "InvalidTopic",
    "LimitExceeded",
    "Message",
    "MessageTooLarge",
    "NoResponders",
    "PayloadError",
    "Peer",
    "PermissionDenied",
    "ProtocolError",
    "Receipt",
    "RemoteError",
    "Reply",
    "RequestError",
    "RequestTimeout",
    "ResponderLost",
    "SockbusError",
    "SubscriptionStalled",
    "TooManyFds",
    "Will",
]
