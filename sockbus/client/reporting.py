"""Where that goes which a program's user should know and no call can say: into the log ``sockbus.client``, as warnings.

What has it may be anybody's code, which raises, or uses the bus that it is told of: so a bus says nothing while it is
in the middle of something, and goes on whatever comes of it. The command line has its own place for complaints, and
does without loading ``logging``.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["also_lost", "report", "report_to"]


def _log(sentence: str) -> None:
    import logging  # here, for the command line

    logging.getLogger("sockbus.client").warning("%s", sentence)


_report: Callable[[str], None] = _log


def report(sentence: str) -> None:
    """Say it; what that raises goes where the errors of log handlers go, and harms nobody else."""
    try:
        _report(sentence)
    except Exception:  # noqa: BLE001  # a handler is the program's own, and logging's do the same
        import logging  # here, for the command line

        logging.Handler().handleError(logging.makeLogRecord({"msg": sentence}))


def report_to(place: Callable[[str], None]) -> None:
    """Let ``place`` have each sentence instead."""
    global _report
    _report = place


def also_lost(count: int) -> str:
    """What a sentence about the end of a connection says besides."""
    return f", and with it perhaps {count} message{'s' if count > 1 else ''}" if count else ""
