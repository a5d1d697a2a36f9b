"""Where that goes which a program's user should know and no call can say: into the log ``sockbus.client``, as warnings.

The command line has its own place for complaints, and does without loading ``logging``.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["report", "report_to"]


def _log(sentence: str) -> None:
    import logging  # here, for the command line

    logging.getLogger("sockbus.client").warning("%s", sentence)


_report: Callable[[str], None] = _log


def report(sentence: str) -> None:
    """Say it."""
    _report(sentence)


def report_to(place: Callable[[str], None]) -> None:
    """Let ``place`` have each sentence instead."""
    global _report
    _report = place
