"""Child processes by fork and exec, and what becomes of them.

subprocess has no safe place for what a child here must do between the two, and takes longer to load than all the rest
of ``run``. For a process without threads, whose signals are blocked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NoReturn

__all__ = ["changes", "die_with", "spawn"]

# From the kernel's linux/prctl.h.
_PR_SET_PDEATHSIG = 1
# Here, not in a child: loading takes locks and memory.
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(words: Sequence[str], environ: Mapping[str, str], mask: Collection[int], prepare: Callable[[], None]) -> int:
    """Run a program, found as execvp(3) finds it; its pid once it runs. ``prepare`` is called in the child before.

    The child has the signal mask given, and default actions for what Python handles or ignores for itself; of
    descriptors, what is inheritable. OSError, of fork, exec or ``prepare``: there is no child.
    """
    receive, send = os.pipe()
    try:
        pid = os.fork()
        if not pid:
            _become(words, environ, mask, prepare, send)
    except BaseException:
        os.close(receive)
        raise
    finally:
        os.close(send)
    with open(receive, "rb") as report:
        # A successful exec closes the other end.
        said = report.read()
    if said:
        os.waitpid(pid, 0)
        raise OSError(int(said), os.strerror(int(said)))
    return pid


def _become(
    words: Sequence[str], environ: Mapping[str, str], mask: Collection[int], prepare: Callable[[], None], report: int
) -> NoReturn:
    """The child's way from fork to exec, or to its end."""
    try:
        prepare()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # Else a Ctrl-C between here and exec would be noted for a handler that exec takes away.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(words[0], list(words), environ)
    except (OSError, ValueError) as error:
        # ValueError: words that execve(2) would refuse with EINVAL.
        reason = error.errno if isinstance(error, OSError) else None
        os.write(report, b"%d" % (reason or errno.EINVAL))
    finally:
        os._exit(127)


def die_with(parent: int) -> None:
    """In a child: have the kernel send SIGTERM when the parent ends, and end here if it has ended already.

    It asks, where SIGKILL would leave the children of a shell or a test runner behind; a program whose user is another
    one is not asked, as exec takes this away then (PR_SET_PDEATHSIG, prctl(2)).
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def changes() -> Iterator[os.waitid_result]:
    """The children that have ended, which are gone then, or were stopped; any that this process was given, too."""
    while True:
        try:
            change = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            return
        if change is None:
            return
        yield change
