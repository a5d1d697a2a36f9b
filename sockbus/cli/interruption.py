"""Ctrl-C and SIGTERM for the verbs that use ``sockbus.blocking``: a KeyboardInterrupt where that tears nothing.

SIGINT has Python's own handler, in whose place a bus that is open puts one that knows where to raise
(``sockbus.interrupt``); SIGTERM is passed on to whichever is in force. One signal more ends what is cleaned up after
the first, and where nobody sends one, a timer does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import TypeVar

from .outcome import Interrupted

__all__ = ["interruption", "left_in_haste"]

# Seconds for the broker to take its leave of whoever is interrupted: it may be stopped, or too busy.
PATIENCE = 0.2
# Seconds between two calls to a main thread that was told of a signal and may have missed it.
MISSED = 0.05

T = TypeVar("T")


@contextlib.contextmanager
def interruption() -> Iterator[None]:
    """Raise Interrupted when the block was ended by a signal."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        _interrupt(number, frame)

    # Also where SIGINT was ignored, as it is behind `&` in a script.
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: end,
        signal.SIGALRM: _interrupt,
        signal.SIGURG: _do_nothing,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with _no_signal_missed():
            yield
    except KeyboardInterrupt:
        # This process is ending: one more signal must not spoil its exit code.
        before = dict.fromkeys(before, signal.SIG_IGN)
        raise Interrupted(*came[:1]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def left_in_haste(block: AbstractContextManager[T]) -> Iterator[T]:
    """The same block, but left within ``PATIENCE`` when it was interrupted."""
    try:
        with block as entered:
            try:
                yield entered
            except KeyboardInterrupt:
                # What came first decides on the exit code.
                signal.signal(signal.SIGTERM, _interrupt)
                signal.setitimer(signal.ITIMER_REAL, PATIENCE)
                raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _interrupt(_: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)


def _do_nothing(_: int, __: FrameType | None) -> None:
    """Ends a system call, after which Python looks for signals."""


@contextlib.contextmanager
def _no_signal_missed() -> Iterator[None]:
    """Wake the main thread, from whatever it waits in, when a signal came.

    Python looks for signals before a system call, and one that comes between does not end that. Nor does one that the
    kernel gives to another thread, as it may while threads start processes.
    """
    receive, send = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    waking = threading.Thread(target=_wake, args=(receive, threading.get_ident()), name="sockbus-signals", daemon=True)
    waking.start()
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        os.close(send)
        waking.join()
        os.close(receive)


def _wake(receive: int, thread: int) -> None:
    poll = select.poll()
    poll.register(receive, select.POLLIN)
    wait = None
    while True:
        if not poll.poll(wait):
            signal.pthread_kill(thread, signal.SIGURG)
        elif not os.read(receive, 4096):
            return
        # From the first signal on; what is sent here comes in there, too.
        wait = 1000 * MISSED
