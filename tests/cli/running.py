"""``sockbus run`` as a process, and what is to be known of processes: children, states, ends.

A ``Run`` keeps its buses in a directory of its own, so that what it leaves behind can be seen there. Its command is
``LISTENER``, unless a test says otherwise: it tells its pid, then each signal that it gets, and SIGTERM ends it.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from tests.brokers import PATIENCE, Program, command, environment

T = TypeVar("T")

#: The exit code of LISTENER.
TOLD = 7
LISTENER = f"""
import os, signal
def tell(number, _):
    REACTION
    os.write(1, f"{{signal.Signals(number).name}}\\n".encode())
    if number == signal.SIGTERM:
        os._exit({TOLD})
for number in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT"):
    signal.signal(getattr(signal, f"SIG{{number}}"), tell)
print(os.getpid(), flush=True)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
while True:
    signal.pause()
"""
# Runs a program as the leader of a session on the terminal that is its standard input.
_ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
# A shell with one job, in a process group of its own, on the terminal that is its standard input. It tells when the job
# was stopped, and brings it to the foreground then, and when it has ended.
_SHELL = """
import os, signal, sys
first, then, *words = sys.argv[1:]
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    if first == "foreground":
        os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execvp(words[0], words)
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, os.getpgrp())
    print("stopped by", signal.Signals(os.WSTOPSIG(status)).name, flush=True)
    if then == "foreground":
        os.tcsetpgrp(0, job)
        os.killpg(job, signal.SIGCONT)
print("ended with", os.waitstatus_to_exitcode(status), flush=True)
"""


def listener(reaction: str = "pass") -> list[str]:
    """The command line of LISTENER, which does something besides with the number of each signal."""
    return [sys.executable, "-S", "-E", "-c", LISTENER.replace("REACTION", reaction)]


class Run(Program):
    """``sockbus run`` with a command, through the program ``before``. ``place`` is where its buses are.

    ``program`` is another command line for ``sockbus``.
    """

    def __init__(
        self,
        *words: str,
        env: Mapping[str, str | None] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        before: Sequence[str] = (),
        program: Sequence[str] = (),
    ) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="sockbus-")
        self.place = Path(self._place.name)
        super().__init__(
            [*before, *(program or command()), "run", "--", *(words or listener())],
            env=environment(XDG_RUNTIME_DIR=str(self.place), **(env or {})),
            stdin=stdin,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def buses(self) -> list[Path]:
        return list(self.place.iterdir())

    def broker(self) -> int:
        """The pid of its broker, as soon as that is there."""
        return until(lambda: next((pid for pid in descendants(self.pid) if "broker" in words_of(pid)), 0))

    def command(self) -> int:
        """The pid that LISTENER tells first."""
        return int(self.out.next())

    def lines(self) -> list[str]:
        """What more the command has told until its end."""
        return self.out.rest().decode().splitlines()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._place.cleanup()


class Starting(Run):
    """A run whose broker, with the pid ``starting``, begins when it may."""

    def __init__(self, place: Path, *before: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> None:
        os.mkfifo(place / "gate")
        self._gate = (place / "gate").open("r+b", buffering=0)
        (place / "sitecustomize.py").write_text(
            "import os, sys\nif 'broker' in sys.orig_argv:\n"
            f"    os.read(os.open({str(place / 'gate')!r}, os.O_RDONLY), 1)\n"
        )
        path = f"{place}:{environment()['PYTHONPATH']}"
        super().__init__(env={"PYTHONPATH": path}, before=before, stdin=stdin)
        self.starting = self.broker()

    def let_broker_begin(self) -> None:
        self._gate.write(b"x")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        # One that waits for it still finds the lifeline cut.
        self.let_broker_begin()
        wait_for_end(self.starting)
        self._gate.close()


@contextmanager
def terminal() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A new terminal: the side where the keyboard is, and the side of the programs."""
    keyboard, programs = pty.openpty()
    with open(keyboard, "r+b", buffering=0) as keyboard_file, open(programs, "r+b", buffering=0) as programs_file:
        yield keyboard_file, programs_file


def on_terminal(*words: str) -> list[str]:
    """The command line that runs a program on its standard input as its terminal, as if logged in there."""
    return [sys.executable, "-S", "-E", "-c", _ON_TERMINAL, *words]


def in_shell(first: str = "foreground", then: str = "foreground") -> list[str]:
    """The command line that runs a program as the job of a shell on the terminal.

    ``first`` may be "background"; ``then``, after a stop, "nothing".
    """
    return on_terminal(sys.executable, "-S", "-E", "-c", _SHELL, first, then)


def until(found: Callable[[], T]) -> T:
    """The first result that is true. For what the kernel shows and tells nobody of."""
    deadline = time.monotonic() + PATIENCE
    while not (result := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE:g} s: {found}")
        time.sleep(0.002)
    return result


def descendants(ancestor: int) -> list[int]:
    """The pids of its children and of theirs, from the oldest generation to the youngest."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
        except OSError:
            continue  # it has gone meanwhile
    found = [ancestor]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


def state(pid: int) -> str:
    """R running, S sleeping, T stopped, Z zombie, …: proc(5)."""
    return _fields(pid)[0]


def words_of(pid: int) -> list[str]:
    """Its command line; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def wait_for_end(pid: int) -> None:
    """Wait until a process of anybody's has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(fd, "rb") as ending:
        ready, _, _ = select.select([ending], [], [], PATIENCE)
    assert ready, f"{words_of(pid)} goes on"


def is_there(pid: int) -> bool:
    """Whether a process, or a zombie, has this pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def killed(pid: int) -> None:
    """End a process as a crash would."""
    os.kill(pid, signal.SIGKILL)


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, from the state on: what is before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
