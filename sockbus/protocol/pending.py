"""One answer that somebody waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from ..errors import SockbusError
from .mailbox import no_wake

__all__ = ["Pending"]


@final
class Pending:
    """The place of one answer: ``wake`` is called when it is there, and ``result`` then gives or raises it."""

    __slots__ = ("_error", "_value", "done", "topic", "wake")

    def __init__(self, topic: str = "") -> None:
        #: of a request
        self.topic = topic
        self.done = False
        self.wake: Callable[[], None] = no_wake
        self._value: Any = None
        self._error: SockbusError | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the answer is here and no error."""
        return self.done and self._error is None

    def attach(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when the answer is here."""
        self.wake = wake

    def detach(self, _: Callable[[], None]) -> None:
        """Nobody waits for it any more."""
        self.wake = no_wake

    def resolve(self, value: Any = None) -> None:
        """The answer is here."""
        self.done = True
        self._value = value
        self.wake()

    def fail(self, error: SockbusError) -> None:
        """The answer is an error."""
        self.done = True
        self._error = error
        self.wake()

    def result(self) -> Any:
        """The answer, or the error raised."""
        if self._error is not None:
            # A fresh one: the session may give the same error to many who wait, each with a traceback of its own.
            raise type(self._error)(*self._error.args) from self._error
        return self._value
