"""The fd guard sees a leak, waits for a late close, and names what leaked; so does the fixture made of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fd_guard
from tests.fd_guard import FdGuard, OpenFd, listing


class Clock:
    """Time that passes only in `pause`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses = 0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(clock: Clock) -> FdGuard:
    return FdGuard(clock=clock, pause=clock.pause)


@pytest.fixture
def leak(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Opens fds that the code under test forgets; closed when the guard's own test is over."""
    opened: list[int] = []

    def open_one(name: str = "leaked") -> int:
        opened.append(os.open(tmp_path / name, os.O_RDWR | os.O_CREAT))
        return opened[-1]

    yield open_one
    for fd in opened:
        os.close(fd)


def test_open_fd_is_found_with_its_target(guard: FdGuard, leak: Callable[..., int], tmp_path: Path) -> None:
    fd = leak()
    assert guard.leaked() == [OpenFd(fd, str(tmp_path / "leaked"))]


def test_two_fds_of_one_file_are_two_leaks(guard: FdGuard, leak: Callable[..., int]) -> None:
    assert {fd.number for fd in guard.leaked()} == set()
    expected = {leak(), leak()}
    assert {fd.number for fd in guard.leaked()} == expected


def test_reused_number_is_a_leak_though_the_count_is_the_same(
    clock: Clock, leak: Callable[..., int], tmp_path: Path
) -> None:
    fd = leak("before")
    guard = FdGuard(clock=clock, pause=clock.pause)
    other = leak("after")
    os.dup2(other, fd)
    assert OpenFd(fd, str(tmp_path / "after")) in guard.leaked()


def test_closed_fds_are_no_leak_and_cost_no_time(guard: FdGuard, clock: Clock) -> None:
    for fd in os.pipe():
        os.close(fd)
    assert guard.leaked() == []
    assert clock.pauses == 0


def test_earlier_fd_whose_file_is_unlinked_is_no_leak(clock: Clock, leak: Callable[..., int], tmp_path: Path) -> None:
    leak()
    guard = FdGuard(clock=clock, pause=clock.pause)
    (tmp_path / "leaked").unlink()
    assert guard.leaked() == []


def test_fd_closed_by_a_thread_while_the_guard_waits_is_no_leak() -> None:
    waiting = threading.Event()
    reader, writer = os.pipe()

    def close_late() -> None:
        waiting.wait()
        os.close(late)

    def pause(_seconds: float) -> None:
        waiting.set()
        closer.join()

    guard = FdGuard(pause=pause)
    late = os.dup(reader)
    closer = threading.Thread(target=close_late)
    closer.start()
    assert guard.leaked() == []
    assert waiting.is_set()
    os.close(reader)
    os.close(writer)


def test_fd_that_goes_with_a_reference_cycle_is_no_leak(guard: FdGuard, clock: Clock) -> None:
    class Owner:
        def __init__(self) -> None:
            self.myself = self
            self.fd = os.open("/dev/null", os.O_RDONLY)

        def __del__(self) -> None:
            os.close(self.fd)

    Owner()
    assert guard.leaked() == []
    assert clock.pauses == 0


def test_wait_for_a_late_close_ends(guard: FdGuard, clock: Clock, leak: Callable[..., int]) -> None:
    leak()
    guard.leaked()
    assert clock.now == pytest.approx(fd_guard.SETTLE_SECONDS)
    assert clock.pauses < 20


def test_listing_has_a_line_for_each_fd() -> None:
    fds = [OpenFd(7, "/tmp/a"), OpenFd(9, "socket:[1]")]
    assert listing(fds) == "2 leaked fds:\n  fd 7 -> /tmp/a\n  fd 9 -> socket:[1]"
    assert listing(fds[:1]) == "1 leaked fd:\n  fd 7 -> /tmp/a"


SUITE = """
import os
import pytest
import trio
from tests import fd_guard

fd_guard.SETTLE_SECONDS = 0.0
kept = []

@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)

def test_sync_clean(pipe):
    pass

async def test_async_clean(pipe, nursery):
    await trio.lowlevel.checkpoint()
    left, right = trio.socket.socketpair()
    left.close()
    right.close()

def test_sync_leak():
    kept.append(os.open("/dev/null", os.O_RDONLY))

async def test_async_leak():
    kept.extend(trio.socket.socketpair())

def test_after_a_leak():
    pass

def test_raises():
    kept.append(os.open("/dev/null", os.O_RDONLY))
    raise RuntimeError
"""


def test_fixture_fails_exactly_the_leaking_tests(tmp_path: Path) -> None:
    here = Path(__file__).parent
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("conftest.py", "fd_guard.py"):
        (tests / name).write_text((here / name).read_text())
    (tests / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntrio_mode = true\npythonpath = .\naddopts = --import-mode=importlib\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("ERROR tests/")]
    assert errors == ["tests/test_suite.py::test_sync_leak", "tests/test_suite.py::test_async_leak"], run.stdout
    assert "5 passed, 1 failed" in run.stdout or "1 failed, 5 passed, 2 errors" in run.stdout
    assert "1 leaked fd:\n  fd " in run.stdout
    assert " -> /dev/null" in run.stdout
    assert "2 leaked fds:\n  fd " in run.stdout
