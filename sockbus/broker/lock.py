"""Which broker serves a path: the one that holds the lock file, never the one whose socket lies there.

A ``Claim`` is an flock(2) on ``PATH.lock`` beside each of its sockets, with the holder's pid inside. The
kernel lets go of it when the holder dies, however it dies, so a socket found by the holder of the lock is stale and
is replaced. What is not a socket is left alone. The lock file is removed last, while still held, and whoever waited
for it looks again.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import final

from ..address import Address
from ..errors import ConnectError, PermissionDenied
from ..transport.private import check_private_directory

__all__ = ["Claim"]


@final
class Claim:
    """The right to serve one UNIX address, from construction to ``release``.

    Raises ConnectError, which names the address and the holder's pid, and PermissionDenied; each leaves everything as
    it was found.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._directory = address.path if address.scheme == "unix" else None
        if self._directory is not None:
            self._make_directory(self._directory)
        self._locks: list[tuple[str, int]] = []
        try:
            # One for each socket, so that whoever names one of them alone meets the same lock.
            for road in address.roads():
                path = road.path + ".lock"
                self._locks.append((path, self._lock(path)))
        except BaseException:
            self._unlock()
            raise

    def clear(self, road: Address) -> None:
        """Remove a stale socket from a path of this claim; ConnectError when something else lies there."""
        try:
            found = os.lstat(road.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._cannot(error) from error
        if not stat.S_ISSOCK(found.st_mode):
            raise ConnectError(
                f"{road.path} is in the way of {self.address}: it is not a socket; move it, or name another address"
            )
        os.unlink(road.path)

    def release(self) -> None:
        """Remove the sockets and the lock file, and let the next broker have the address."""
        for road in self.address.roads():
            # What is not a socket was in the way, and is somebody's.
            if _is_socket(road.path):
                _unlink(road.path)
        self._unlock()

    def _unlock(self) -> None:
        for path, fd in self._locks:
            _unlink(path)
            os.close(fd)
        self._locks.clear()
        self._remove_directory()

    def _make_directory(self, path: str) -> None:
        if self.address.is_default:
            check_private_directory(path)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise ConnectError(
                    f"{path} is in the way of {self.address}: it is not a directory; move it, or name another address"
                ) from None
        except FileNotFoundError:
            parent = os.path.dirname(path) or "."
            if os.path.isdir(parent):
                reason = "takes no directories; name another address"
            else:
                reason = "does not exist; make it first, or name another address"
            raise ConnectError(f"the directory of {self.address} cannot be made: {parent} {reason}") from None
        except OSError as error:
            raise self._cannot(error) from error
        if self.address.is_default:
            # Again, for somebody may have been quicker with a directory of his own.
            check_private_directory(path)

    def _remove_directory(self) -> None:
        if self._directory is not None:
            try:
                os.rmdir(self._directory)
            except OSError:
                # Somebody else's files are in it, or the next broker's.
                return

    def _lock(self, path: str) -> int:
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                if self._directory is None or not os.path.isdir(os.path.dirname(self._directory) or "."):
                    raise ConnectError(
                        f"{self.address} cannot be served: its directory does not exist; make it first, or name "
                        f"another address"
                    ) from None
                # The broker before us has just removed the directory.
                self._make_directory(self._directory)
                continue
            except OSError as error:
                raise self._cannot(error) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.read(fd, 32).decode(errors="replace").strip()
                os.close(fd)
                raise ConnectError(
                    f"{self.address} is served already, by the process with pid {pid or 'unknown'}; stop it, or name "
                    f"another address"
                ) from None
            except OSError as error:
                os.close(fd)
                raise self._cannot(error) from error
            if _is_current(path, fd):
                if not _is_lock(fd):
                    os.close(fd)
                    raise ConnectError(
                        f"{path} is in the way of {self.address}: it is not a broker's lock; move it, or name "
                        f"another address"
                    )
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
            # The broker before us removed the file between our open and our lock.
            os.close(fd)

    def _cannot(self, error: OSError) -> ConnectError | PermissionDenied:
        kind = PermissionDenied if isinstance(error, PermissionError) else ConnectError
        return kind(f"{self.address} cannot be served: {error.filename or ''}: {error.strerror}; name another address")


def _is_current(path: str, fd: int) -> bool:
    """Whether an open lock file is the one that lies at its path now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _is_lock(fd: int) -> bool:
    """Whether an open file is empty or holds a pid: others are somebody's, such as the lock file of a packager."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    content = os.pread(fd, 32, 0).strip()
    return not content or content.isdigit()


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
