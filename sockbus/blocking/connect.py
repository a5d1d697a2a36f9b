"""From an address to a ``Bus``, and its end."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import final

from ..address import Address
from ..client.connecting import BUFFER_BYTES, CONNECT_SECONDS, Connecting, Reconnect, check_reconnect
from ..interrupt import deferred, deliver, install, is_due, uninstall
from ..message import Will
from ..protocol.handshake import check_name
from .bus import Bus
from .poller import drive_dialling

__all__ = ["connect"]


@final
class connect:  # noqa: N801  # used like a function
    """Connect to a broker: a context manager that gives a ``Bus``.

    ``address`` is text or an ``Address``; None is ``$SOCKBUS_ADDRESS``, else the user's default bus. ``name`` is what
    others see as ``sender.name``. ``will`` is published in this program's name when it goes without leaving the block:
    when it is killed, or cut off. The first connection is tried once, for ``timeout`` seconds (None: for ever; looking
    up the name of a host takes as long as it takes): ConnectError says where and why it failed.

    ``reconnect`` says what becomes of a lost connection: with "wait" it is connected again by itself, and calls wait
    for that, while publishes of up to ``buffer_bytes`` are kept for it; with "fail" calls raise ConnectionLost until it
    is there again; with None for good.

    Leaving the block waits until the broker has taken over everything published, 5 s at most, and then raises
    LimitExceeded. A block left by an exception lets that through, with a note where leaving failed as well. Other
    threads' calls end with ConnectionLost when it is left.

    While a bus is open a handler of sockbus stands in for Python's own SIGINT handler (and for no other), which raises
    KeyboardInterrupt where that tears nothing.
    """

    def __init__(
        self,
        address: str | Address | None = None,
        *,
        name: str | None = None,
        reconnect: Reconnect = "wait",
        will: Will | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        timeout: float | None = CONNECT_SECONDS,
    ) -> None:
        check_name(name)
        check_reconnect(reconnect, buffer_bytes)
        self._how = (address, name, will, reconnect, buffer_bytes)
        self._timeout = timeout

    @deferred
    def __enter__(self) -> Bus:
        install()
        try:
            deadline = None if self._timeout is None else monotonic() + self._timeout
            connecting = Connecting(*self._how, self._timeout or 0.0)
            channel = drive_dialling(connecting.dialled(), self._timeout)
            try:
                bus = Bus(channel, connecting)
            except OSError:
                # No descriptor was left for it.
                channel.transport.close()
                raise
            bus._open(None if deadline is None else deadline - monotonic())
            if is_due():
                with bus._waits as waits:
                    waits.close()
                deliver()
        except BaseException:
            uninstall()
            raise
        self._bus = bus
        return bus

    @deferred
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._bus._leave(error)
        finally:
            uninstall()
            deliver()
