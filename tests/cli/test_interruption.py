"""What a signal does to a verb, in programs of their own: ended by one, a process ignores all that come later."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from sockbus.cli.interruption import interruption
from tests.brokers import PATIENCE, Program

BEGIN = """
import contextlib, os, signal, sys, threading, time
from sockbus.cli.interruption import interruption, left_in_haste
from sockbus.cli.outcome import Interrupted
def tell(what):
    os.write(1, f"{what}\\n".encode())
"""
WAITING = """
def give_to_another_thread():
    time.sleep(0.1)  # while the main one waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=give_to_another_thread, daemon=True).start()
lock = threading.Lock()
lock.acquire()
try:
    with interruption():
        lock.acquire()
except Interrupted as ended:
    tell(ended.exit_code)
"""
LEAVING = """
@contextlib.contextmanager
def slow():
    try:
        yield
    finally:
        tell("leaving")
        time.sleep(1000)
try:
    with interruption(), left_in_haste(slow()):
        tell("entered")
        time.sleep(1000)
except Interrupted as ended:
    tell(ended.exit_code)
"""


def test_block_that_is_not_interrupted_leaves_all_as_it_was() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGURG)
    before = [signal.getsignal(number) for number in numbers], threading.enumerate(), os.listdir("/proc/self/fd")
    with interruption():
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
    assert before == (
        [signal.getsignal(number) for number in numbers],
        threading.enumerate(),
        os.listdir("/proc/self/fd"),
    )
    assert signal.set_wakeup_fd(-1) == -1


def test_signal_that_another_thread_got_ends_the_wait_of_the_main_one() -> None:
    with Program([sys.executable, "-c", BEGIN + WAITING]) as program:
        assert program.out.next() == "143"
        assert program.code() == 0


@pytest.mark.parametrize(
    ("first", "second", "code"), [(signal.SIGINT, signal.SIGTERM, "130"), (signal.SIGTERM, signal.SIGINT, "143")]
)
def test_second_signal_ends_the_leaving_and_the_first_decides(
    first: signal.Signals, second: signal.Signals, code: str
) -> None:
    patient = BEGIN + "import sockbus.cli.interruption as i; i.PATIENCE = 1000.0\n" + LEAVING
    with Program([sys.executable, "-c", patient]) as program:
        assert program.out.next() == "entered"
        program.signal(first)
        assert program.out.next() == "leaving"
        program.signal(second)
        assert program.out.next() == code
        assert program.code() == 0


def test_leaving_that_hangs_needs_no_second_signal() -> None:
    with Program([sys.executable, "-c", BEGIN + LEAVING]) as program:
        assert program.out.next() == "entered"
        began = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.out.next() == "leaving"
        assert program.out.next() == "130"
        assert time.monotonic() - began < PATIENCE / 2
        assert program.code() == 0
