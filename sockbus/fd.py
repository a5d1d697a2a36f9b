"""Owning and closing file descriptors.

``Fd`` owns one descriptor that came with a message; ``SharedFds`` owns those of one frame while several
outboxes still have to send it. Both close exactly once. Descriptors that came from somebody else are never closed
where an event loop waits: closing a socket can block for as long as its SO_LINGER says, also when it only sits
unread in the queue of the socket that is closed (socket(7)). ``close_fds`` hands such descriptors to threads of
their own, where one that lingers holds up no other.

Nothing here changes a descriptor's flags or offset: they are shared with whoever else holds the open file.
"""

from __future__ import annotations

import collections
import fcntl
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import IO, Any, NoReturn, Protocol, Self, final

from .interrupt import deferred, deliver, deliver_soon, is_due, pending

__all__ = ["Fd", "HasFileno", "SharedFds", "close_each", "close_fds", "closing_settled", "descriptor", "duplicate"]

# fcntl(2): memfds and files of tmpfs have seals, pipes have a size.
_ONLY_IN_MEMORY = tuple(getattr(fcntl, name) for name in ("F_GET_SEALS", "F_GETPIPE_SZ") if hasattr(fcntl, name))
_MAX_INT = (1 << 31) - 1


class HasFileno(Protocol):
    """An object with a descriptor: a file, a socket, an ``Fd``."""

    def fileno(self) -> int: ...


@final
class Fd:
    """Owner of one open file descriptor, close-on-exec.

    It is closed by ``close``, at the end of a ``with``, or when the last reference goes. ``open``, ``socket``
    and ``detach`` hand the ownership on and leave this object closed.
    """

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def closed(self) -> bool:
        """Whether the descriptor was closed or handed on."""
        return self._fd < 0

    def fileno(self) -> int:
        """The number, still owned by this object; ValueError when it was closed or handed on."""
        if self._fd < 0:
            raise ValueError("this Fd was closed, or its descriptor was handed on")
        return self._fd

    @deferred
    def close(self) -> None:
        """Close it; again is no error. A socket is closed soon, in another thread, for it may linger."""
        self._close()
        if pending.came:
            deliver()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_own(fd)

    def detach(self) -> int:
        """Hand the descriptor on: the caller closes it."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def open(self, mode: str = "rb", **options: Any) -> IO[Any]:
        """Hand the descriptor on to a file object, made by the built-in ``open`` with these arguments.

        Raises what ``open`` raises, and still owns the descriptor then.
        """
        # open() closes the descriptor on some of its errors and not on others: a first one, which owns
        # nothing, meets them all.
        open(self.fileno(), mode, **{**options, "closefd": False}).close()
        return open(self.detach(), mode, **{**options, "closefd": True})

    def socket(self) -> socket.socket:
        """Hand the descriptor on to a socket object; OSError, and still owned, when it is not a socket."""
        made = socket.socket(fileno=self.fileno())
        self._fd = -1
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @deferred
    def __del__(self) -> None:
        # A KeyboardInterrupt in a finalizer would be lost, and the descriptor with it.
        self._close()
        if pending.came and is_due():
            deliver_soon()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Fd can be neither pickled nor copied: it owns a descriptor, whose number means nothing in another "
            "process; publish it, with fds=, or duplicate it with os.dup"
        )

    def __repr__(self) -> str:
        return f"<Fd {self._fd}>" if self._fd >= 0 else "<Fd closed>"


@deferred
def close_each(fds: Iterable[Fd]) -> None:
    """Close them all."""
    for fd in fds:
        fd._close()
    if pending.came:
        deliver()


class SharedFds:
    """The descriptors of one frame, closed when the last of its holders lets go.

    Starts with one holder. ``released`` is called once with the number of descriptors, when they are closed. ``own``:
    they are duplicates of this program's, and no thread is needed to close them.
    """

    __slots__ = ("_holders", "_own", "_released", "fds")

    def __init__(
        self, fds: tuple[int, ...], released: Callable[[int], None] | None = None, *, own: bool = False
    ) -> None:
        self.fds = fds
        self._holders = 1
        self._own = own
        self._released = released

    def hold(self) -> None:
        """One more holder."""
        self._holders += 1

    def release(self) -> None:
        """One holder fewer; the last one closes."""
        self._holders -= 1
        if self._holders == 0:
            fds, self.fds = self.fds, ()  # their numbers soon belong to other files
            if self._own:
                for fd in fds:
                    close_own(fd)
            else:
                close_fds(fds)
            if self._released is not None:
                self._released(len(fds))


def descriptor(source: int | HasFileno) -> int:
    """The number of a descriptor given as an int or an object with ``fileno()``.

    TypeError when it is neither, ValueError when it is closed or no number of a descriptor.
    """
    fileno = None if isinstance(source, int) else getattr(source, "fileno", None)
    fd: object = source if fileno is None else fileno()
    if isinstance(fd, bool) or not isinstance(fd, int):
        raise TypeError(f"a file descriptor is an int or has fileno(), not {type(source).__name__}")
    if not 0 <= fd <= _MAX_INT:
        raise ValueError(f"{source!r:.80} is closed, or no file descriptor; pass one that is open")
    return fd


def duplicate(fds: Iterable[int]) -> tuple[int, ...]:
    """Close-on-exec duplicates (F_DUPFD_CLOEXEC, fcntl(2)); all or, with OSError, none."""
    made: list[int] = []
    try:
        for fd in fds:
            made.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))  # noqa: PERF401  # undone one by one below
    except OSError:
        for fd in made:
            close_own(fd)
        raise
    return tuple(made)


def close_own(fd: int) -> None:
    """Close what this program could have opened itself: at once, but for sockets, which may linger."""
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            close_fds((fd,))
        else:
            os.close(fd)
    except OSError as error:
        _warn("closing fd %d: %s", fd, error)


class _Closer:
    """Threads that close descriptors: one; a spare where more than one waits; more while those are stuck.

    Whenever something is queued, a thread that is not in a close looks at the queue at least every
    ``STUCK_SECONDS``. ``sockets`` closes the sockets, so that those that linger hold up nothing but sockets even
    when they hold all of its threads.
    """

    # A close that lasts longer than this is stuck, and another thread goes on with the queue.
    STUCK_SECONDS = 0.02
    MAX_THREADS = 64
    IDLE_SECONDS = 10.0

    def __init__(self, sockets: _Closer | None = None) -> None:
        self.sockets = sockets
        self._lock = threading.RLock()  # a finalizer may close in the middle of a close
        self._queued = threading.Condition(self._lock)
        self._settled = threading.Condition(self._lock)
        self._since: dict[int, float] = {}  # thread → when its close began; 0.0 while idle
        self.queue: collections.deque[int] = collections.deque()

    def close(self, fds: Iterable[int]) -> None:
        with self._lock:
            self.queue.extend(fds)
            self._ensure_spare()
            self._queued.notify()

    def settled(self, timeout: float) -> bool:
        with self._lock:
            return self._settled.wait_for(lambda: not self.queue and not any(self._since.values()), timeout) and (
                self.sockets is None or self.sockets.settled(timeout)
            )

    def _ensure_spare(self) -> None:
        """With something queued, one thread is idle, and so looks at it, as long as there may be another."""
        if not self.queue or not all(self._since.values()) or len(self._since) >= self.MAX_THREADS:
            return
        thread = threading.Thread(target=self._run, name="sockbus-closer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _warn("%d fds stay open until the next is closed: %s", len(self.queue), error)
            return
        assert thread.ident is not None
        self._since.setdefault(thread.ident, 0.0)

    def _run(self) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                self._since[me] = 0.0
                self._settled.notify_all()
                if not self._wait_for_work():
                    del self._since[me]
                    return
                fd = self.queue.popleft()
                self._since[me] = time.monotonic()
                self._ensure_spare()
            try:
                if self.sockets is not None and stat.S_ISSOCK(os.fstat(fd).st_mode):
                    self.sockets.close((fd,))
                else:
                    os.close(fd)
            except OSError as error:
                _warn("closing fd %d: %s", fd, error)

    def _wait_for_work(self) -> bool:
        """Wait until something is queued and all other threads are idle or stuck; False after a long idle time."""
        idle_until = time.monotonic() + self.IDLE_SECONDS
        while True:
            now = time.monotonic()
            if self.queue:
                busy = filter(None, list(self._since.values()))
                if all(now - since > self.STUCK_SECONDS for since in busy):
                    return True
                self._queued.wait(self.STUCK_SECONDS)
            elif now < idle_until:
                self._queued.wait(idle_until - now)
            else:
                return False


_closer = _Closer(_Closer())


def _forget_threads() -> None:
    global _closer
    # The child has none of the threads, and its copies of the descriptors still have to be closed.
    left = [*_closer.queue, *(_closer.sockets.queue if _closer.sockets is not None else ())]
    _closer = _Closer(_Closer())
    _closer.close(left)


os.register_at_fork(after_in_child=_forget_threads)


def close_fds(fds: Iterable[int]) -> None:
    """Close descriptors of foreign origin, never blocking: in another thread, soon, what could make a close wait."""
    fds = tuple(fd for fd in fds if not _closed_at_once(fd))
    # An interpreter that ends runs no thread any more: starting one, or a lock that one holds, would block it
    # for good. The end of the process closes them.
    if fds and not sys.is_finalizing():
        _closer.close(fds)


def _closed_at_once(fd: int) -> bool:
    """Whether this was a file in memory or a pipe, and is closed now.

    Only they answer these calls, and the answer needs no file system: fstat(2) would ask one, and where that is a
    process of the sender's (FUSE) it would be waited for. Handing one to a thread costs more than the whole message.
    """
    for command in _ONLY_IN_MEMORY:
        try:
            fcntl.fcntl(fd, command)
        except OSError:
            continue
        os.close(fd)
        return True
    return False


def closing_settled(timeout: float) -> bool:
    """Wait up to ``timeout`` seconds until all that ``close_fds`` got is closed; whether that was reached."""
    return _closer.settled(timeout)


def _warn(line: str, *values: object) -> None:
    # Only now: a small program, as `sockbus pub`, takes a tenth longer to start with it.
    import logging

    logging.getLogger("sockbus.fd").warning(line, *values)
