"""What people read: results on stdout, complaints on stderr, never the other way round.

What a peer says must not speak to the terminal: control characters, line separators and marks that turn the direction
of writing leave here as ``\\n`` or ``\\u001b``, spelt so that JSON text stays the same JSON. Text goes out in UTF-8
whatever the locale is. Everything is written to the descriptors themselves and nothing is kept in a buffer: a line is
out when the call returns, and the end of the process has nothing left to flush into a broken pipe.
"""

from __future__ import annotations

import math
import os
import re
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable
from time import monotonic

from .outcome import Failure, ReaderGone

__all__ = [
    "ROOM",
    "complain",
    "describe_end",
    "describe_fd",
    "escaped",
    "open_standard_fds",
    "say",
    "watch_reader",
    "write",
]

_STDOUT = 1
_STDERR = 2
#: bytes that poll(2) promises to have room in a pipe that is writable, PIPE_BUF in pipe(7)
ROOM = 4096
# Seconds: about as long as poll(2) can wait.
_LONGEST = 1e6
# C0, DEL, C1; the line and paragraph separators; the direction marks of Unicode; what UTF-8 cannot say.
_UNSAFE = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_UNSAFE_IN_LINES = _UNSAFE.replace(r"\x00-\x1f", r"\x00-\x08\x0b-\x1f")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# A peer's error text may have any length; the sentence that names it has not.
MAX_SENTENCE = 2000


def escaped(text: str, *, lines: bool = False) -> str:
    """The text without anything that a terminal would obey; with ``lines``, line feeds and tabs stay."""
    # Compiled when it is needed, for `pub` prints nothing, and kept by `re`.
    unsafe = _UNSAFE_IN_LINES if lines else _UNSAFE
    return re.sub(unsafe, lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


def write(data: bytes, *, deadline: float = math.inf) -> bytes:
    """Write a result to stdout; waits while nobody reads, until then (monotonic). What is left; ReaderGone, Failure.

    Lines of up to 4096 bytes go into a pipe wholly or not at all, whatever interrupts this, and whoever else writes.
    """
    if sys.stdout is None:
        raise Failure("the result cannot be written: standard output is closed; open it, or send it to /dev/null")
    at = 0
    try:
        while at < len(data) and _has_room(_STDOUT, deadline):
            at += _write(_STDOUT, data[at : _end_of_lines(data, at)])
    except BrokenPipeError as error:
        raise ReaderGone("the reader of standard output has gone") from error
    except OSError as error:
        raise Failure(f"the result cannot be written to standard output: {error.strerror}") from error
    return data[at:]


def _end_of_lines(data: bytes, at: int) -> int:
    """How far from there a pipe certainly has room, in whole lines where they are short enough."""
    end = at + ROOM
    return len(data) if end >= len(data) else data.rfind(b"\n", at, end) + 1 or end


def watch_reader(gone: Callable[[], object]) -> None:
    """Call ``gone``, in a thread, when the reader of a pipe on stdout goes; else that shows with the next result."""
    if stat.S_ISFIFO(os.fstat(_STDOUT).st_mode):
        threading.Thread(target=_watch, args=(gone,), name="sockbus-reader", daemon=True).start()


def _watch(gone: Callable[[], object]) -> None:
    poll = select.poll()
    # For no event: what ends it is POLLERR.
    poll.register(_STDOUT, 0)
    poll.poll()
    gone()


def say(line: str) -> None:
    """One line on stderr, control characters escaped."""
    try:
        _write_all(_STDERR, f"{escaped(line)}\n".encode())
    except OSError:
        # There is nobody left to complain to.
        return


def complain(sentence: str, who: str = "sockbus") -> None:
    """One sentence on one line of stderr."""
    line = re.sub(r"\s*[\r\n]\s*", " ", sentence.strip())
    if len(line) > MAX_SENTENCE:
        line = f"{line[:MAX_SENTENCE]}…"
    say(f"{who}: {line}")


def describe_fd(fd: int) -> tuple[str, int | None]:
    """Kind and size of an open file; the size in bytes of what has one, else None."""
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode):
        kind = "memfd" if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:") else "file"
        return kind, found.st_size
    for is_kind, kind in _KINDS:
        if is_kind(found.st_mode):
            return kind, None
    return "other", None


def describe_end(code: int) -> str:
    """How a program ended: by its exit code, or by the signal whose negative number this is."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


_KINDS = (
    (stat.S_ISDIR, "directory"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def open_standard_fds() -> None:
    """Put /dev/null where a standard descriptor was closed: a socket with its number would get what is printed."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[_write(fd, left) :]


def _write(fd: int, data: bytes | memoryview) -> int:
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            # Somebody who shares the open file made it non-blocking; that is his to undo.
            _has_room(fd, math.inf)


def _has_room(fd: int, deadline: float) -> bool:
    """Wait until it takes more, or shows why not by an error; False when it does not until then (monotonic)."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while not poll.poll(1000 * min(max(0.0, deadline - monotonic()), _LONGEST)):
        if monotonic() >= deadline:
            return False
    return True
