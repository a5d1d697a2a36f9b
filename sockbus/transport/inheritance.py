"""The sockets of connections that a forked child has inherited: it lets go of them, and nobody else notices.

Its copy of a socket is closed and never shut down, which would end the parent's connection too. An epoll instance is
one for both processes (epoll(7)): what the child's event loop changes or removes there, and each event that it takes,
the parent's loop would miss. So the child gets epoll instances of its own, where its loop finds all as it was, and in
place of each socket a descriptor that nothing ever comes from. Invariant: nothing that the child does reaches a
socket of its parent's.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import weakref
from collections.abc import Iterable, Iterator

__all__ = ["go_on", "let_go", "look_around", "open_socket"]

Registered = list[tuple[int, int]]  # descriptors, and the events that they are waited for

# Held while a socket is opened, and during a fork: a child has no socket that is not known yet.
_opening = threading.RLock()
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_epolls: list[tuple[int, Registered]] = []
# proc(5), /proc/PID/fdinfo: descriptor, events, and the loop's own mark, of each that is registered.
_find_registered = re.compile(r"^tfd: +(\d+) events: +([0-9a-f]+) data: +([0-9a-f]+)", re.MULTILINE).findall
_MARK = (1 << 32) - 1


def open_socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    """The socket of a connection that is about to be made. OSError."""
    with _opening:
        sock = socket.socket(family, kind, protocol)
        _sockets.add(sock)
    return sock


def look_around() -> None:
    """Before a fork: note what the child's event loop will know. The parent's changes before the child has begun."""
    global _epolls
    _opening.acquire()
    _epolls = []
    if numbers := _numbers():
        _epolls = list(_find_epolls(numbers))


def go_on() -> None:
    """In the parent, after a fork."""
    # A child of the next one may come about without Python's knowing, and must not find the past.
    _epolls.clear()
    _opening.release()


def let_go() -> None:
    """In a child, before anything else: be rid of the parent's connections. Their owners still close each socket."""
    global _opening
    _opening = threading.RLock()
    numbers = _numbers()
    for number in numbers:
        # First, and before anything could fail: the broker must see the end as soon as the parent is gone.
        os.close(number)
    for number in numbers:
        _occupy(number)
    for number, registered in _epolls:
        # Unless another thread has closed it, and opened something else, just before the fork.
        if _is_epoll(number):
            _replace(number, registered)
    _epolls.clear()


def _numbers() -> set[int]:
    return {sock.fileno() for sock in _sockets} - {-1}


def _occupy(number: int) -> None:
    """Let nobody else get the number of a descriptor that the loop still knows."""
    silent = os.eventfd(0, os.EFD_CLOEXEC)
    if silent != number:
        os.dup2(silent, number, inheritable=False)
        os.close(silent)


def _find_epolls(numbers: set[int]) -> Iterator[tuple[int, Registered]]:
    """The epoll instances that know one of these, and all that each knows."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if not _is_epoll(number):
            continue
        with open(f"/proc/self/fdinfo/{number}") as info:
            found = _find_registered(info.read())
        known = [(int(fd), int(events, 16), int(mark, 16) & _MARK) for fd, events, mark in found]
        # One with other marks than the numbers is no Python loop's, and only its owner could copy it.
        if any(fd in numbers for fd, _, _ in known) and all(fd == mark for fd, _, mark in known):
            yield number, [(fd, events) for fd, events, _ in known]


def _is_epoll(number: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventpoll]"
    except FileNotFoundError:
        # That of the listing itself is closed by now; or another thread has closed it.
        return False


def _replace(number: int, registered: Iterable[tuple[int, int]]) -> None:
    with select.epoll() as own:
        for fd, events in registered:
            try:
                own.register(fd, events)
            except OSError:
                # Closed here, and registered through somebody else's copy.
                continue
        os.dup2(own.fileno(), number, inheritable=False)
