"""Ctrl-C that waits: KeyboardInterrupt only where nothing is torn by it, for programs without an event loop.

Python's own SIGINT handler raises between any two instructions of the main thread: between recvmsg(2) and what stores
the descriptors that came, or between taking a message and handing it over. While a blocking bus is open, a handler
stands in for it that looks where the program is: inside a function marked ``deferred`` it only notes that Ctrl-C came,
unless that has called one marked ``interruptible``, where the program waits. (Nothing is paid on the way in. CPython
runs handlers at calls, returns of calls and loops, so a plain assignment is safe.) A handler of the program's own is
left alone, and so is every other thread, which no signal interrupts.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TypeVar

__all__ = [
    "Pending",
    "deferred",
    "deliver",
    "deliver_soon",
    "install",
    "interruptible",
    "is_due",
    "pending",
    "uninstall",
]

F = TypeVar("F", bound=Callable[..., object])

_deferred: set[CodeType] = set()
_interruptible: set[CodeType] = set()
_users = 0


class Pending:
    """Whether a Ctrl-C came that is still to be raised: one for the process, for signals are."""

    __slots__ = ("came",)

    def __init__(self) -> None:
        self.came = False


pending = Pending()


def deferred(function: F) -> F:
    """Mark a function in which no KeyboardInterrupt may be raised; it ends with ``if pending.came: deliver()``."""
    _deferred.add(function.__code__)
    return function


def interruptible(function: F) -> F:
    """Mark a function that waits, called by a deferred one: KeyboardInterrupt is raised in it at once."""
    _interruptible.add(function.__code__)
    return function


def install() -> None:
    """Stand in for Python's own handler, if that is in force and this is the main thread; ``uninstall`` must follow."""
    global _users
    _users += 1
    if threading.current_thread() is threading.main_thread() and _is_in_force(signal.default_int_handler):
        signal.signal(signal.SIGINT, _came)


def uninstall() -> None:
    """The last one puts Python's own handler back."""
    global _users
    _users -= 1
    if not _users and threading.current_thread() is threading.main_thread() and _is_in_force(_came):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_due() -> bool:
    """Whether this is the main thread and a Ctrl-C is to be raised in it."""
    return pending.came and threading.current_thread() is threading.main_thread()


def deliver() -> None:
    """Raise the KeyboardInterrupt that is due, if one is."""
    if is_due():
        pending.came = False
        raise KeyboardInterrupt


def deliver_soon() -> None:
    """See to it that a Ctrl-C that is due is raised, from where nothing can be raised: a finalizer."""
    threading.Thread(target=_send_again, daemon=True).start()


def _send_again() -> None:
    time.sleep(0.001)
    if pending.came:
        pending.came = False
        # To the main thread, so that it also ends a system call there.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _is_in_force(handler: object) -> bool:
    return signal.getsignal(signal.SIGINT) is handler


def _came(number: int, frame: FrameType | None) -> None:
    at = frame
    while at is not None:
        if at.f_code in _interruptible:
            break
        if at.f_code in _deferred:
            pending.came = True
            return
        at = at.f_back
    pending.came = False
    signal.default_int_handler(number, frame)
