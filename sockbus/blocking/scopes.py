"""The blocks of a bus that change how it works while they last: ``batch`` and ``background``."""

from __future__ import annotations

import threading
from time import perf_counter
from types import TracebackType
from typing import final

from ..client.client import LEAVE_SECONDS
from ..client.need import Expired, Steps
from ..errors import SockbusError
from ..interrupt import deferred, deliver, is_due, pending
from ..protocol.frame import MAX_FRAME, stamp
from .departure import check_sent, finish
from .waits import Waits

__all__ = ["Background", "Batch", "gather"]


@final
class Batch:
    """What the thread that enters it publishes leaves together. One in another adds nothing."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._gathered: bytearray | None = None
        self._thread = 0

    @deferred
    def __enter__(self) -> None:
        if self._thread:
            raise RuntimeError("this batch was entered before; ask the bus for another one")
        self._thread = threading.get_ident()
        with self._waits as waits:
            if threading.get_ident() not in waits.batching:
                self._gathered = waits.batching[threading.get_ident()] = bytearray()
        if is_due():
            # What raises here is not left by its __exit__.
            self._end()
            deliver()

    @deferred
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._gathered is None:
            return
        try:
            with self._waits as waits:
                session, is_all = waits.session, not self._gathered
                waits.spill(self._gathered, None if error is None else LEAVE_SECONDS)
                finish(waits, None if error is None else LEAVE_SECONDS)
                if session.error is not None and not is_all:
                    check_sent(waits, session)
        except BaseException as failure:
            size = f"{len(self._gathered)} bytes" if self._gathered else "some"
            note = f"{size} of what was published in the batch were not sent"
            if error is None or not isinstance(failure, (Expired, SockbusError)):
                failure.add_note(note)
                raise
            why = "there was no room in time" if isinstance(failure, Expired) else failure
            error.add_note(f"besides, {note}: {why}")
        finally:
            self._end()
            deliver()

    def _end(self) -> None:
        if self._gathered is not None:
            self._gathered = None
            with self._waits as waits:
                del waits.batching[self._thread]


@final
class Background:
    """A thread that waits at the bus for nothing, and so reads for everybody whenever nobody else does."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="sockbus-background", daemon=True)

    @deferred
    def __enter__(self) -> None:
        self._waits.check()
        self._thread.start()
        if is_due():
            self._stop()
            deliver()

    @deferred
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        deliver()

    def _stop(self) -> None:
        with self._waits:
            self._ended = True
            self._waits.over.open_all()
        # It ends as soon as it has the lock.
        self._thread.join()

    def _run(self) -> None:
        with self._waits as waits:
            waits.drive(self._until_ended())

    def _until_ended(self) -> Steps[None]:
        while not self._ended and self._waits.error is None:
            yield self._waits.over


def gather(waits: Waits, gathered: bytearray, topic: str, payload: object, timeout: float | None) -> bool:
    """Put a message with those of this thread's batch, which asks for no lock; False when it is too large.

    TimeoutError when there is no room in time, and the message was not put.
    """
    session = waits.session
    if waits.detour:
        # It says what is wrong, or how to go on; behind what was gathered, whatever it finds when it has the lock.
        _spill(waits, gathered, topic, timeout)
        return False
    frame = session.sender.plain(topic, payload)
    if type(frame) is not bytes or len(frame) > MAX_FRAME:
        return False
    if len(gathered) + len(frame) > MAX_FRAME:
        _spill(waits, gathered, topic, timeout)
    elif perf_counter() - waits.yielded > waits.yield_seconds:
        # A batch that fills slowly must not keep credit from going back.
        try:
            with waits:
                waits.look()
        finally:
            deliver()
    gathered += frame
    if waits.session is not session:
        # Another connection was made since the frame was: it is to name that one's sender.
        with waits:
            stamp(gathered, waits.session.sender.number)
    if pending.came:
        deliver()
    return True


def _spill(waits: Waits, gathered: bytearray, topic: str, timeout: float | None) -> None:
    """Send what was gathered, so that a message may follow; TimeoutError."""
    try:
        with waits:
            waits.spill(gathered, timeout)
            waits.look()
    except Expired as expired:
        raise waits.no_room(topic, expired) from None
    finally:
        deliver()
