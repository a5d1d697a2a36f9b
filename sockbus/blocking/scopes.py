"""The blocks of a bus that change how it works while they last: ``batch`` and ``background``."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import final

from ..client.client import LEAVE_SECONDS
from ..client.need import Expired, Steps
from ..errors import SockbusError
from ..interrupt import deferred, deliver, is_due
from .waits import Waits

__all__ = ["Background", "Batch"]


@final
class Batch:
    """What the thread that enters it publishes leaves together. One in another adds nothing."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._gathered: bytearray | None = None

    @deferred
    def __enter__(self) -> None:
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
                waits.spill(self._gathered, None if error is None else LEAVE_SECONDS)
                waits.finish(None if error is None else LEAVE_SECONDS)
        except (Expired, SockbusError) as failure:
            if error is None:
                raise
            error.add_note(f"besides, what was published in the batch may not have been sent: {failure}")
        finally:
            self._end()
            deliver()

    def _end(self) -> None:
        if self._gathered is not None:
            self._gathered = None
            with self._waits as waits:
                del waits.batching[threading.get_ident()]


@final
class Background:
    """A thread that waits at the bus for nothing, and so reads for everybody whenever nobody else does."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="sockbus-background", daemon=True)

    @deferred
    def __enter__(self) -> None:
        self._waits.session.check()
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
        while not self._ended and self._waits.session.error is None:
            yield self._waits.over
