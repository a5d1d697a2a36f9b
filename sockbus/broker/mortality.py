"""The death of local peers' processes: seen by pidfd (pidfd_open(2)), also while somebody else holds the socket.

A child that was forked without its knowledge keeps a dead peer's socket open, and no end of file comes. So for each
link of a UNIX socket the process that connected is watched: SO_PEERPIDFD (Linux 6.5) names just that process, and where
there is none pidfd_open(2) of the number that SO_PEERCRED gave, which a new process could have only if the old one
died before the handshake. One epoll instance waits for all of them, and one task for that. Where no pidfd is to be had
the end of file has to do, as on TCP.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Mortality"]

# <asm-generic/socket.h>; Python 3.11 has no name for it.
_SO_PEERPIDFD = 77


@final
class Mortality:
    """The processes of all links."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._links: dict[int, Link] = {}
        self._pidfds: dict[Link, int] = {}

    def open(self) -> None:
        """Begin to watch; ``close`` must follow."""
        # Where no descriptor is to be had, the end of file has to do.
        with contextlib.suppress(OSError):
            self._epoll = select.epoll()

    def close(self) -> None:
        """Watch nobody any more."""
        for link in list(self._pidfds):
            self.forget(link)
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    async def watch_over(self) -> None:
        """End the links of processes that die, until cancelled."""
        while self._epoll is not None:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for pidfd, _ in self._epoll.poll(0):
                self._died(pidfd)

    def note(self, link: Link) -> None:
        """Watch the process at the other end of a link, where that can be done."""
        if self._epoll is None or link.peer.pid is None:
            return
        pidfd = _pidfd_of(link.transport.sock, link.peer.pid)
        if pidfd < 0:
            return
        try:
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError:
            # The user's limit of watches (epoll(7)), or no memory.
            os.close(pidfd)
            return
        self._links[pidfd] = link
        self._pidfds[link] = pidfd

    def forget(self, link: Link) -> None:
        """The link has ended."""
        pidfd = self._pidfds.pop(link, -1)
        if pidfd >= 0:
            del self._links[pidfd]
            if self._epoll is not None:
                self._epoll.unregister(pidfd)
            os.close(pidfd)

    def _died(self, pidfd: int) -> None:
        link = self._links.get(pidfd)
        if link is None:
            return
        self.forget(link)
        # What it sent is still read, then comes the end of the file, and whoever holds the socket can send no more.
        with contextlib.suppress(OSError):
            link.transport.sock.shutdown(socket.SHUT_RDWR)


def _pidfd_of(sock: socket.socket, pid: int) -> int:
    """A descriptor of the process at the other end of a UNIX socket; -1 where none is to be had."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        # ENOPROTOOPT before Linux 6.5, and reasons for which the call below fails as well.
        pass
    try:
        return os.pidfd_open(pid)
    except OSError:
        # ESRCH, EMFILE, ENOSYS, EINVAL (in a container that does not see the process its number is 0).
        return -1
