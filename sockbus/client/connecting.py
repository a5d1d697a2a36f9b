"""From an address to an open session.

The sentences of what can go wrong are here; ``CONNECT_SECONDS`` are for both halves together: reaching the broker, and
its answer.
"""

from __future__ import annotations

from typing import final

from ..address import Address, default_address
from ..errors import ConnectError, MessageTooLarge, SockbusError
from ..message import Will
from ..protocol.handshake import check_name
from ..protocol.sender import check_will
from ..transport.channel import Channel
from ..transport.dial import dial
from .client import Client
from .need import Expired, Steps

__all__ = ["CONNECT_SECONDS", "Connecting"]

# Seconds that connecting, handshake included, may take.
CONNECT_SECONDS = 10.0


@final
class Connecting:
    """One attempt. ``address`` is text, an Address, or None for the default; ConnectError where it is none."""

    def __init__(self, address: str | Address | None, name: str | None, will: Will | None, seconds: float) -> None:
        if address is None:
            address = default_address()
        elif isinstance(address, str):
            address = Address.parse(address)
        self._address = address
        self._name = check_name(name)
        self._will = will
        if will is not None:
            check_will(will)
        self._seconds = seconds
        #: the road taken
        self.road = ""

    def dialled(self) -> Steps[Channel]:
        """Reach the broker; ConnectError and PermissionDenied say why that failed."""
        try:
            transport, road = yield from dial(self._address)
        except Expired:
            raise self._unanswered() from None
        self.road = str(road)
        return Channel(transport, self._name)

    def welcomed(self, client: Client) -> Steps[None]:
        """Wait for the broker's answer to HELLO, and until it has the will.

        ConnectError when it refuses, or does not answer in time.
        """
        session = client.session
        try:
            yield from client.result(session.welcome)
            if self._will is not None:
                left = session.sender.will(self._will)
                client.flush()
                yield from client.result(left)
        except Expired:
            raise self._unanswered() from None
        except MessageTooLarge:
            raise
        except SockbusError as error:
            raise ConnectError(f"the broker at {self.road} refused the connection: {error}") from error

    def _unanswered(self) -> ConnectError:
        return ConnectError(f"the broker at {self._address} did not answer within {self._seconds:g} s; is it stopped?")
