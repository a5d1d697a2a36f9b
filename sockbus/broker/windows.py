"""What one peer is told that it may send, and of what was taken over: docs/wire.md, "Windows"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from ..protocol.frame import Kind, control
from ..protocol.outbox import Lane
from .intake import Intake

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Windows"]


@final
class Windows:
    """The three classes of messages of one link together: publishes, requests, replies."""

    def __init__(self, link: Link, intakes: tuple[Intake, Intake, Intake]) -> None:
        self._link = link
        self._intakes = intakes
        self._publishes = intakes[0]

    def told(self) -> tuple[int, ...]:
        """The body of WINDOW, as it was last told."""
        totals = [told for intake in self._intakes for told in (intake.told_bytes, intake.told_fds)]
        return (*totals, self._publishes.told_messages)

    def settle(self) -> None:
        """At the end of a turn: tell what is due now, and note what is to be told within a second."""
        if not self._link.pump.is_open:
            return
        if any(intake.moved and intake.due() for intake in self._growing()):
            self._tell()
        elif self._publishes.taken_messages != self._publishes.told_messages:
            self._link.hub.untold[self._link] = None

    def tell_taken(self) -> None:
        """Tell what was taken over since it was last told, whether more window is needed or not."""
        if not self._link.gone and self._publishes.taken_messages != self._publishes.told_messages:
            self._tell()
            self._link.hub.touched[self._link] = None

    def _growing(self) -> Sequence[Intake]:
        """Those that may be granted more; the others keep what they have, however much is taken over."""
        hub = self._link.hub
        if hub.is_stopping:
            return ()
        # Requests and replies have ended when their links have: nothing of them can be left behind.
        return self._intakes[1:] if hub.admission.is_overdrawn(self._link.account) else self._intakes

    def _tell(self) -> None:
        for intake in self._growing():
            intake.grant()
        self._publishes.told_messages = self._publishes.taken_messages
        self._link.outlet.put(Lane.CONTROL, control(Kind.WINDOW, list(self.told())))
