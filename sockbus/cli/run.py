"""``sockbus run``: a private broker for the life of one command.

All that happens to this process, the ends of its children included, comes as a signal, and all signals are blocked and
taken in one place, one at a time, with where they came from. So nothing interrupts anything, and nothing is lost
between looking and waiting; and no event loop has to be loaded.

The command stays in this process's group: whoever is behind a pipe with it must share the terminal with it. What the
terminal sends, it sends to the whole group, so the command has it already; what a process sends to this one is passed
on (twice, then, if that was to the whole group: nothing tells the two apart). A stopped command stops this process, so
that a shell notices, and goes on when this process does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Collection, Sequence
from typing import final

from .child import changes, die_with, spawn
from .outcome import FAILED, USAGE, Ended, Failure, Interrupted
from .output import complain, describe_end
from .private_broker import PrivateBroker

__all__ = ["run"]

# Seconds for the broker's goodbye, which takes 5 at most.
PATIENCE = 6.0

# What a program does itself by a mistake is not a message to it; Python ignores the last two for itself.
_SIGNALS = signal.valid_signals() - {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGPIPE,
    signal.SIGXFSZ,
}
# What ends this process while there is no command yet.
_ENDING = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM))
# What the kernel sends to a whole group.
_SHARED = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH))
# These too, but when a terminal is gone, only to the leader of its session.
_SHARED_OR_LEADERS = frozenset((signal.SIGHUP, signal.SIGCONT))


def run(arguments: Namespace) -> None:
    """Run the command to its end; Ended with its exit code, unless that is 0."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # Ignored, as whoever started this may have it, children would leave without a word.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with PrivateBroker(arguments.limit) as broker:
        code = _Supervisor(arguments.words, broker).run(mask)
    if code:
        raise Ended(code)


@final
class _Supervisor:
    """Waits for broker and command."""

    def __init__(self, words: Sequence[str], broker: PrivateBroker) -> None:
        self._words = words
        self._broker = broker
        self._command = 0
        self._code: int | None = None
        shared = _SHARED if os.getsid(0) == os.getpid() else _SHARED | _SHARED_OR_LEADERS
        # SIGIO is the broker's readiness.
        self._not_passed = shared | {signal.SIGIO}

    def run(self, mask: Collection[int]) -> int:
        """From the broker's start to its end; the exit code of the command."""
        try:
            self._wait_until_ready()
            self._start(mask)
            return self._wait_for_command()
        finally:
            self._dismiss()

    def _wait_until_ready(self) -> None:
        while not self._broker.is_ready():
            self._look()
            if self._broker.code in (FAILED, USAGE):
                # It has said why.
                raise Ended(self._broker.code)
            if self._broker.code is not None:
                raise Failure(f"the private broker {describe_end(self._broker.code)} before it was ready; try again")
            came = signal.sigwaitinfo({signal.SIGCHLD, signal.SIGIO, signal.SIGTSTP, *_ENDING}).si_signo
            if came in _ENDING and signal.getsignal(came) is not signal.SIG_IGN:
                raise Interrupted(came)
            if came == signal.SIGTSTP:
                _stop(came)

    def _start(self, mask: Collection[int]) -> None:
        this = os.getpid()

        def prepare() -> None:
            die_with(this)
            for fd, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
                if stream is None:
                    # It was closed when this program began, which has put /dev/null there.
                    os.close(fd)

        name = self._words[0]
        environ = {**os.environ, "SOCKBUS_ADDRESS": str(self._broker.address)}
        try:
            self._command = spawn(self._words, environ, mask, prepare)
        except OSError as error:
            raise Failure(f"{name!r} cannot be run: {error.strerror}; name a program, or the path of one") from error

    def _wait_for_command(self) -> int:
        while True:
            self._look()
            if self._code is not None:
                return self._code if self._code >= 0 else 128 - self._code
            came = signal.sigwaitinfo(_SIGNALS)
            if came.si_signo != signal.SIGCHLD:
                self._pass_on(came)

    def _look(self) -> None:
        """See what became of the children."""
        for change in changes():
            code = change.si_status if change.si_code == os.CLD_EXITED else -change.si_status
            if change.si_code == os.CLD_STOPPED:
                if change.si_pid == self._command:
                    self._stop_like_command(change.si_status)
            elif change.si_pid == self._command:
                self._code = code
            elif change.si_pid == self._broker.pid:
                self._broker.code = code
                if self._command and self._code is None:
                    self._broker.remove_directory()
                    complain(f"the private broker {describe_end(code)}; {self._words[0]} goes on without a bus")

    def _pass_on(self, came: signal.struct_siginfo) -> None:
        if came.si_code > 0 and came.si_signo in self._not_passed:
            return
        if came.si_code <= 0 and came.si_pid == self._command:
            # To its group, as `kill 0` does, and so to itself as well.
            return
        try:
            os.kill(self._command, came.si_signo)
        except PermissionError:
            complain(f"signal {came.si_signo} cannot be passed on: {self._words[0]} runs as another user")

    def _stop_like_command(self, number: int) -> None:
        if number == signal.SIGSTOP:
            if os.getpgid(os.getppid()) == os.getpgrp():
                # Nobody does job control here: whoever stopped the command will continue it, and it alone.
                return
            number = signal.SIGTSTP
        going_on = os.WCONTINUED | os.WEXITED | os.WNOHANG | os.WNOWAIT
        if _stop(number) and os.waitid(os.P_PID, self._command, going_on) is None:
            # This process was continued alone; a shell continues the whole group.
            os.kill(self._command, signal.SIGCONT)

    def _dismiss(self) -> None:
        self._broker.dismiss()
        deadline = time.monotonic() + PATIENCE
        while self._broker.code is None:
            if signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic())) is None:
                os.kill(self._broker.pid, signal.SIGKILL)
                os.waitpid(self._broker.pid, 0)
                return
            self._look()


def _stop(number: int) -> bool:
    """Stop this process, by a signal that stops, until it is continued; False when it would not be by anybody.

    In a group without a shell the kernel does not stop it (setpgid(2), orphaned process groups).
    """
    # In this order it is one signal, together with the one that the terminal may have sent.
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    # Stopping has thrown away what came before (signal(7)): what is here has ended it.
    return signal.sigtimedwait({signal.SIGCONT}, 0) is not None
