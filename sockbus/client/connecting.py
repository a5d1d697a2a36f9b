"""From an address to an open session.

The sentences of what can go wrong are here; ``CONNECT_SECONDS`` are for both halves together: reaching the broker, and
its answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, final

from ..address import Address, default_address
from ..errors import ConnectError, ConnectionLost, MessageTooLarge, SockbusError
from ..message import Will
from ..protocol.handshake import check_name
from ..protocol.pending import Pending
from ..protocol.sender import check_will
from ..protocol.session import Session
from ..transport.base import Blocked
from ..transport.channel import Channel
from ..transport.dial import Pause, Readable, Writable, dial
from .need import Expired, Steps

__all__ = [
    "BUFFER_BYTES", "CONNECT_SECONDS", "LATER_SECONDS", "Connecting", "Reconnect", "answered", "check_reconnect",
]  # fmt: skip

# Seconds that connecting, handshake included, may take.
CONNECT_SECONDS = 10.0
# Seconds until a send is tried again that met a limit of the kernel's, which readiness does not show.
LATER_SECONDS = 0.01
# Of publishes that wait for a connection, where a program does not say.
BUFFER_BYTES = 1 << 20


Reconnect = Literal["wait", "fail"] | None


@final
class Connecting:
    """Where a bus is to be connected to, and how: one for all its attempts, ``seconds`` for each.

    ``address`` is text, an Address, or None for the default; ConnectError where it is none. ``reconnect`` and
    ``buffer_bytes`` are ``connect``'s; ValueError where they are none.
    """

    def __init__(
        self,
        address: str | Address | None,
        name: str | None,
        will: Will | None,
        reconnect: Reconnect,
        buffer_bytes: int,
        seconds: float = CONNECT_SECONDS,
    ) -> None:
        if address is None:
            address = default_address()
        elif isinstance(address, str):
            address = Address.parse(address)
        check_reconnect(reconnect, buffer_bytes)
        if will is not None:
            check_will(will)
        self.address = address
        self.will = will
        self.reconnect = reconnect
        self.buffer_bytes = buffer_bytes
        #: the road taken
        self.road = ""
        self._name = check_name(name)
        self._seconds = seconds
        # The odd ones, each used once by all sessions together.
        self._numbers = itertools.count(1, 2)

    def dialled(self) -> Steps[Channel]:
        """Reach the broker; ConnectError and PermissionDenied say why that failed."""
        try:
            transport, road = yield from dial(self.address)
        except Expired:
            raise self._unanswered() from None
        self.road = str(road)
        return Channel(transport, self._name, self._numbers)

    def welcomed(self, session: Session, flush: Callable[[], None]) -> Steps[None]:
        """Wait for the broker's answer to HELLO, and until it has the will.

        ConnectError when it refuses, or does not answer in time.
        """
        try:
            yield from _answered(session.welcome)
            if self.will is not None:
                left = session.sender.will(self.will)
                flush()
                yield from _answered(left)
        except Expired:
            raise self._unanswered() from None
        except MessageTooLarge:
            raise
        except SockbusError as error:
            raise ConnectError(f"the broker at {self.road} refused the connection: {error}") from error

    def _unanswered(self) -> ConnectError:
        return ConnectError(f"the broker at {self.address} did not answer within {self._seconds:g} s; is it stopped?")


def answered(channel: Channel, pending: Pending) -> Steps[None]:
    """Write and read until somebody is answered; what the answer raises."""
    while not pending.done:
        if channel.blocked is Blocked.WRITABLE:
            yield Writable(channel.sock)
            channel.unblock()
        elif channel.blocked is not None:
            yield Pause(LATER_SECONDS)
            channel.unblock()
        else:
            yield Readable(channel.sock)
            channel.read()
    try:
        pending.result()
    except ConnectionLost as error:
        raise ConnectError(str(error)) from error


def _answered(pending: Pending) -> Steps[None]:
    if not pending.done:
        yield pending
    pending.result()


def check_reconnect(reconnect: Reconnect, buffer_bytes: int) -> None:
    """ValueError when these are no options of ``connect``."""
    if reconnect not in ("wait", "fail", None):
        raise ValueError(f"reconnect={reconnect!r:.80} is neither 'wait' nor 'fail' nor None")
    if type(buffer_bytes) is not int or buffer_bytes < 0:
        raise ValueError(f"buffer_bytes={buffer_bytes!r:.80} is not a whole number of bytes from 0 up")
