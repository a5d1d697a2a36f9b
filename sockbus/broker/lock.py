"""Which broker serves a path: the one that holds the lock file, never the one whose socket lies there.

A ``Claim`` is an flock(2) on ``DIR/lock`` (``PATH.lock`` for a single socket) with the holder's pid inside. The
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
        self._made = False
        if self._directory is not None:
            self._make_directory(self._directory)
            self._path = os.path.join(self._directory, "lock")
        else:
            self._path = address.path + ".lock"
        try:
            self._fd = self._lock()
        except BaseException:
            self._remove_directory()
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
            _unlink(road.path)
        _unlink(self._path)
        os.close(self._fd)
        self._remove_directory()

    def _make_directory(self, path: str) -> None:
        if self.address.is_default:
            check_private_directory(path)
        try:
            os.mkdir(path, 0o700)
            self._made = True
        except FileExistsError:
            if not os.path.isdir(path):
                raise ConnectError(
                    f"{path} is in the way of {self.address}: it is not a directory; move it, or name another address"
                ) from None
        except FileNotFoundError:
            raise ConnectError(
                f"the directory of {self.address} cannot be made: {os.path.dirname(path) or '.'} does not exist; make "
                f"it first, or name another address"
            ) from None
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

    def _lock(self) -> int:
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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
            if self._is_current(fd):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
            # The broker before us removed the file between our open and our lock.
            os.close(fd)

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _cannot(self, error: OSError) -> ConnectError | PermissionDenied:
        kind = PermissionDenied if isinstance(error, PermissionError) else ConnectError
        return kind(f"{self.address} cannot be served: {error.filename or ''}: {error.strerror}; name another address")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
