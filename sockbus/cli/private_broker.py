"""A broker of one's own: ``sockbus broker`` as a child process, on an address that nobody else knows.

Its directory is made by the broker's process and removed by it; its owner removes what a broker that was killed left.
Broker and owner are tied by a pipe, the lifeline: the broker ends when nobody holds the other end, which is how it is
told to, and how it learns that its owner was killed. The kernel closes a pipe whatever happens, also before the broker
looks; a death signal (PR_SET_PDEATHSIG) would come in the middle of starting, or never.

Whoever waits for this child is told elsewhere (``run``): nothing here waits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self, final

from ..address import Address
from ..errors import ConnectError
from .child import spawn
from .outcome import Failure

__all__ = ["PrivateBroker"]


@final
class PrivateBroker:
    """Started when entered; when left, its owner must have seen its end, and nothing of it remains.

    ``code`` is for the owner to set, once the process ``pid`` has ended: its exit code, or the negative number of a
    signal. SIGIO, which is to be blocked, comes whenever ``is_ready`` may have changed.
    """

    def __init__(self, limits: Sequence[str]) -> None:
        self._options = [option for limit in limits for option in ("--limit", limit)]
        self.address: Address
        self.pid: int
        self.code: int | None = None
        self._ready, self._lifeline = -1, -1

    def __enter__(self) -> Self:
        self._ready, ready = os.pipe()
        lifeline, self._lifeline = os.pipe()
        fcntl.fcntl(self._ready, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._ready, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        try:
            self._start(ready, lifeline)
        except BaseException:
            self._close()
            raise
        finally:
            os.close(ready)
            os.close(lifeline)
        return self

    def is_ready(self) -> bool:
        """Whether its address accepts; never waits."""
        if self._ready < 0:
            return True
        try:
            ready = bool(os.read(self._ready, 16))
        except BlockingIOError:
            return False
        if ready:
            os.close(self._ready)
            self._ready = -1
        return ready

    def dismiss(self) -> None:
        """Have it say goodbye, send what is queued, 5 s at most, and end."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def remove_directory(self) -> None:
        """Remove what a broker that was killed has left."""
        _remove(self.address.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self.remove_directory()

    def _close(self) -> None:
        self.dismiss()
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def _start(self, ready: int, lifeline: int) -> None:
        refusals = []
        for base in _bases():
            try:
                self.address = Address.parse(f"unix:{os.path.join(base, f'sockbus-{os.urandom(8).hex()}')}")
                self.pid = self._spawn(base, ready, lifeline)
            except ConnectError as error:
                refusals.append(str(error))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    _remove(self.address.path)
                refusals.append(f"in {base}: {error.strerror}")
            else:
                return
        raise Failure(
            f"the private broker cannot be started: {'; '.join(refusals)}; set $TMPDIR to a directory of yours"
        )

    def _spawn(self, base: str, ready: int, lifeline: int) -> int:
        _check(base)
        path = self.address.path

        def prepare() -> None:
            # Of a session of its own, the terminal's Ctrl-C and hang-up do not end it before its peers have.
            os.setsid()
            # Here, not by the broker, which takes what is there: its arguments, which anybody may read, name the path.
            os.mkdir(path, 0o700)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            for fd in (ready, lifeline):
                os.set_inheritable(fd, True)

        words = [*_python(), "broker", str(self.address), "--ready-fd", str(ready), "--lifeline-fd", str(lifeline)]
        return spawn([*words, *self._options], os.environ, (), prepare)


def _bases() -> list[str]:
    """The directories for temporary things, the best first."""
    named = (os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", ""), "/tmp")
    return [base for base in named if os.path.isabs(base)]


def _check(base: str) -> None:
    """PermissionError when somebody but this user and root could exchange what lies there: sudo keeps variables."""
    found = os.stat(base)
    if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
        raise PermissionError(errno.EPERM, "it is another user's, or open to others")


def _python() -> list[str]:
    """The command line of this program, without its arguments."""
    # The current directory may hold a trio.py of anybody's. Started with -m, this program was looked for there as well.
    is_module = sys.modules["__main__"].__spec__ is not None and not sys.flags.safe_path
    return [sys.executable, *([] if is_module else ["-P"]), "-m", "sockbus"]


def _remove(path: str) -> None:
    if os.path.lexists(path):
        # Seldom needed, and slow to load.
        import shutil

        shutil.rmtree(path, ignore_errors=True)
