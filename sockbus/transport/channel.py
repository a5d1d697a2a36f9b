"""A session on a transport: what a client does between two waits, for every runtime.

A ``Channel`` reads what is there into the session and sends what the session has queued, and translates OSError once.
It waits for nothing: ``blocked`` says what to wait for before ``flush`` can go on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import final

from ..errors import ConnectionLost, SockbusError
from ..protocol.session import Session
from .base import Blocked, Transport

__all__ = ["Channel"]

# Receives in one turn before others run.
TURN_READS = 4


@final
class Channel:
    """One connection of a client. It owns the transport."""

    __slots__ = ("_broken", "blocked", "session", "sock", "transport")

    def __init__(self, transport: Transport, name: str | None, numbers: Iterator[int]) -> None:
        self.transport = transport
        self.sock = transport.sock
        found = os.fstat(transport.sock.fileno())
        self.session = Session(
            carries_fds=transport.carries_fds,
            records=transport.records,
            own_socket=(found.st_dev, found.st_ino),
            numbers=numbers,
            name=name,
        )
        #: why the last flush could not send everything; None when it did
        self.blocked: Blocked | None = None
        self._broken = False

    def read(self) -> bool:
        """Take what is there, a bounded turn of it; False when nothing more will come and the session has ended."""
        session = self.session
        transport = self.transport
        try:
            for _ in range(TURN_READS):
                came = transport.receive()
                if came is None:
                    break
                data, fds = came
                if not data:
                    session.ended()
                    return False
                session.receive(data, fds)
                if session.error is not None:
                    return False
                if len(data) < transport.full_receive and not fds:
                    # One with descriptors stops short behind them.
                    break
        except OSError as error:
            session.fail(ConnectionLost(f"the connection to the broker broke: {error.strerror}; is it still running?"))
            return False
        except SockbusError as error:
            session.fail(error)
            return False
        if session.orders.urgent:
            self.flush()
        return True

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        session = self.session
        session.orders.urgent = False
        if self.blocked is not None:
            return
        outbox = session.outbox
        while outbox.queued_bytes:
            batch = outbox.batch()
            if batch is None or self._broken:
                return
            try:
                sent = self.transport.send(batch.buffers, batch.fds.fds if batch.fds is not None else ())
            except OSError:
                # The broker is gone; what it said last, and the end, are still to be read.
                self._broken = True
                return
            if isinstance(sent, Blocked):
                self.blocked = sent
                return
            outbox.sent(sent)

    def unblock(self) -> None:
        """What ``blocked`` asked for has come: go on."""
        self.blocked = None
        self.flush()

    def close(self) -> None:
        """End the session, if it has not ended, and close the socket. Nothing may wait for the socket any more."""
        self.session.fail(ConnectionLost("this connection was given up"))
        self.blocked = None
        self.transport.close()
