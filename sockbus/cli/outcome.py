"""How a command can end but well: each way an exception with its exit code, and nothing else decides exit codes.

0 is done, 1 failed, 2 usage, 130 Ctrl-C (128 + SIGINT; likewise 143 for SIGTERM), and what ``run`` ran has codes of its
own. The text of a Failure is one sentence for people; the others say nothing, for whoever caused them knows.
"""

from __future__ import annotations

import signal

__all__ = ["FAILED", "USAGE", "Ended", "Failure", "Interrupted", "ReaderGone", "UsageError"]

FAILED = 1
USAGE = 2


class Failure(Exception):
    """The command could not do what it was asked."""

    exit_code = FAILED


class UsageError(Failure):
    """The command was asked for what cannot be: nothing was begun."""

    exit_code = USAGE


class ReaderGone(Exception):
    """Nobody reads stdout any more, as behind ``| head``: the command ends quietly, as cat and grep do."""

    exit_code = FAILED


class Interrupted(Exception):
    """A signal ended the command."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Ended(Exception):
    """A program that was run to its end has ended with this exit code, and has said itself what there was to say."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code
