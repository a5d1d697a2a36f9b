"""What a call has queued has left when it returns, or waits for the next connection, or the call raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..client.need import Expired, Steps
from ..protocol.session import Session
from .attempts import ATTEMPT_SECONDS

if TYPE_CHECKING:
    from .waits import Waits

__all__ = ["check_sent", "finish"]


def finish(waits: Waits, timeout: float | None) -> None:
    """Connect if that is due, send what is queued, and wait until the kernel has it or until the deadline."""
    waits.flush()
    while waits.session.outbox.queued_bytes or waits.session.error is not None:
        if waits.error is not None or (waits.session.error is not None and not waits.keeps_for_another):
            return
        if waits.session.error is None:
            steps, seconds = _sent(waits), timeout
        elif waits.attempts.is_due():
            steps = waits.attempts.made()
            seconds = ATTEMPT_SECONDS if timeout is None else min(timeout, ATTEMPT_SECONDS)
        else:
            return
        try:
            waits.drive(steps, seconds)
        except Expired:
            return


def _sent(waits: Waits) -> Steps[None]:
    while waits.session.outbox.queued_bytes and waits.session.error is None:
        yield waits.written


def check_sent(waits: Waits, session: Session) -> None:
    """Raise why what was queued with a session that has ended may not have left, and waits for no other one.

    It is counted in ``in_doubt`` as well.
    """
    waits.check()
    if not waits.keeps_for_another:
        session.check()
