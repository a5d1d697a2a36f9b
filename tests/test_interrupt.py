"""Where KeyboardInterrupt comes, by the functions that are marked; each in a process, for signals are global."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.brokers import ROOT

HEAD = """
import signal, threading, time
from sockbus.interrupt import deferred, deliver, deliver_soon, install, interruptible, is_due, pending, uninstall

def press():
    signal.raise_signal(signal.SIGINT)

said = []
"""

PROGRAMS = {
    "outside of what is marked, at once": """
install()
try:
    press()
except KeyboardInterrupt:
    said.append("raised")
""",
    "in deferred code, at its end": """
install()
@deferred
def work():
    press()
    said.append("went on")
    assert is_due()
    deliver()
try:
    work()
except KeyboardInterrupt:
    said.append("raised")
assert said == ["went on", "raised"] and not pending.came
said = said[1:]
""",
    "in what deferred code calls, not at all": """
install()
def inner():
    press()
@deferred
def work():
    inner()
work()
assert pending.came
said.append("raised")
""",
    "in interruptible code, at once": """
install()
@interruptible
def wait():
    press()
    said.append("went on")
@deferred
def work():
    try:
        wait()
    finally:
        press()
try:
    work()
except KeyboardInterrupt:
    said.append("raised")
assert pending.came
""",
    "in a thread, never; in the main one, at once": """
install()
@deferred
def work():
    press()
    assert not is_due()
    deliver()
thread = threading.Thread(target=work)
try:
    thread.start()
    thread.join()
except KeyboardInterrupt:
    said.append("raised")
""",
    "from a finalizer, soon after it": """
install()
class Thing:
    @deferred
    def __del__(self):
        press()
        if is_due():
            deliver_soon()
try:
    thing = Thing()
    del thing
    for _ in range(100):
        time.sleep(0.1)  # one that is about to begin is not ended by a signal
except KeyboardInterrupt:
    said.append("raised")
""",
    "with nothing standing in, as ever": """
install()
install()
uninstall()
assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
uninstall()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
@deferred
def work():
    press()
try:
    work()
except KeyboardInterrupt:
    said.append("raised")
""",
}


@pytest.mark.parametrize("where", PROGRAMS)
def test_interrupt_comes(where: str) -> None:
    program = HEAD + PROGRAMS[where] + "\nassert said == ['raised'], said\n"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
