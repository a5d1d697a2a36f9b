"""The blocks of a bus that change how it works while they last: ``batch`` and ``background``."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import final

from ..client.need import Steps
from ..interrupt import deferred, deliver, is_due
from .waits import Waits

__all__ = ["Background", "Batch"]


@final
class Batch:
    """What the thread that enters it publishes leaves together."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    @deferred
    def __enter__(self) -> None:
        with self._waits as waits:
            waits.begin_batch()
        if is_due():
            # What raises here is not left by its __exit__.
            with self._waits as waits:
                waits.end_batch()
            deliver()

    @deferred
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._waits as waits:
                waits.end_batch()
                if error is not None:
                    waits.flush()
                elif threading.get_ident() not in waits.batching:
                    waits.finish(None)
        finally:
            deliver()


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
