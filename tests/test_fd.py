"""Owning and closing: every descriptor is closed exactly once, and none waits behind one that lingers."""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sockbus.fd
from sockbus.fd import Fd, SharedFds, close_fds, closing_settled, descriptor, duplicate

ROOT = Path(__file__).resolve().parent.parent
SETTLE_SECONDS = 30.0


def memfd(content: bytes = b"") -> int:
    fd = os.memfd_create("test")
    os.pwrite(fd, content, 0)
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def drop(fd: Fd) -> None:
    fd.__del__()


def leave(fd: Fd) -> None:
    with fd as entered:
        assert entered is fd


# Fd


@pytest.mark.parametrize("end", [Fd.close, leave, drop])
def test_descriptor_is_closed_exactly_once(end: Callable[[Fd], object]) -> None:
    fd = Fd(number := memfd())
    assert (fd.closed, fd.fileno(), repr(fd)) == (False, number, f"<Fd {number}>")
    end(fd)
    assert (fd.closed, repr(fd)) == (True, "<Fd closed>")
    assert not is_open(number)
    # The number now belongs to another file, which a second close would hit.
    successor = memfd()
    assert successor == number
    end(fd)
    assert is_open(successor)
    os.close(successor)


def test_descriptor_is_closed_when_its_last_reference_goes() -> None:
    fd = Fd(number := memfd())
    again = fd
    del fd
    assert is_open(number)
    del again
    assert not is_open(number)


def test_detached_descriptor_belongs_to_the_caller() -> None:
    fd = Fd(number := memfd())
    assert fd.detach() == number
    fd.close()
    del fd
    assert is_open(number)
    os.close(number)


@pytest.mark.parametrize("use", [Fd.fileno, Fd.detach, Fd.open, Fd.socket, descriptor])
def test_closed_fd_cannot_be_used(use: Callable[[Fd], object]) -> None:
    fd = Fd(memfd())
    fd.close()
    with pytest.raises(ValueError, match=r"closed"):
        use(fd)


@pytest.mark.parametrize(
    ("mode", "options", "kind", "content"),
    [
        ("rb", {}, io.BufferedReader, b"h\xc3\xa9llo"),
        ("rb", {"buffering": 0}, io.FileIO, b"h\xc3\xa9llo"),
        ("r", {"encoding": "utf-8"}, io.TextIOWrapper, "héllo"),
        ("r+b", {}, io.BufferedRandom, b"h\xc3\xa9llo"),
        ("rb", {"closefd": False}, io.BufferedReader, b"h\xc3\xa9llo"),
    ],
)
def test_opened_file_owns_the_descriptor(mode: str, options: dict[str, Any], kind: type, content: object) -> None:
    fd = Fd(number := memfd("héllo".encode()))
    with fd.open(mode, **options) as file:
        assert fd.closed
        assert type(file) is kind
        assert file.fileno() == number
        assert file.read() == content
        fd.close()
        assert is_open(number)
    assert not is_open(number)


def test_opening_for_writing_truncates_nothing() -> None:
    number = memfd(b"before")
    kept = os.dup(number)
    with Fd(number).open("wb") as file:
        file.write(b"AF")
    assert os.pread(kept, 10, 0) == b"AFfore"
    os.close(kept)


def directory() -> int:
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


def pipe_end() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


@pytest.mark.parametrize(
    ("source", "mode", "options", "error"),
    [
        (memfd, "q", {}, ValueError),
        (memfd, "rwb", {}, ValueError),
        (memfd, "r", {"encoding": "no-such-code"}, LookupError),
        (memfd, "r", {"encoding": "utf-8", "newline": "x"}, ValueError),
        (memfd, "rb", {"encoding": "utf-8"}, ValueError),
        (memfd, "r", {"encoding": "utf-8", "buffering": 0}, ValueError),
        (memfd, "rb", {"no_such_option": 1}, TypeError),
        (directory, "rb", {}, IsADirectoryError),
        (pipe_end, "r+b", {}, io.UnsupportedOperation),
    ],
)
def test_failed_open_leaves_the_descriptor_owned(
    source: Callable[[], int], mode: str, options: dict[str, Any], error: type[Exception]
) -> None:
    fd = Fd(number := source())
    with pytest.raises(error):
        fd.open(mode, **options)
    assert fd.fileno() == number
    assert is_open(number)
    fd.close()
    assert not is_open(number)


def test_socket_takes_the_descriptor() -> None:
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    fd = Fd(number := here.detach())
    with there, fd.socket() as taken:
        assert fd.closed
        assert (taken.fileno(), taken.family, taken.type) == (number, socket.AF_UNIX, socket.SOCK_SEQPACKET)
        taken.send(b"through")
        assert there.recv(10) == b"through"


@pytest.mark.parametrize("source", [memfd, directory, pipe_end])
def test_what_is_no_socket_stays_owned(source: Callable[[], int]) -> None:
    with Fd(source()) as fd:
        number = fd.fileno()
        with pytest.raises(OSError, match=r"non-socket") as caught:
            fd.socket()
        assert caught.value.errno == errno.ENOTSOCK
        assert fd.fileno() == number
        assert is_open(number)


# Numbers


class Holder:
    def __init__(self, fd: object) -> None:
        self._fd = fd

    def fileno(self) -> Any:
        return self._fd


def test_descriptor_is_found_in_ints_and_in_what_has_fileno() -> None:
    with socket.socket() as sock, Fd(memfd()) as fd:
        assert [descriptor(source) for source in (0, 2**31 - 1, sock, fd, Holder(7), sys.__stdin__)] == [
            0, 2**31 - 1, sock.fileno(), fd.fileno(), 7, 0,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (True, TypeError),
        ("/dev/null", TypeError),
        (1.0, TypeError),
        (None, TypeError),
        (Holder("3"), TypeError),
        (Holder(False), TypeError),
        (-1, ValueError),
        (2**31, ValueError),
        (Holder(-1), ValueError),
        (io.BytesIO(), ValueError),
        (socket.SocketType.__new__(socket.socket), ValueError),
    ],
)
def test_what_is_no_descriptor_is_refused(source: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        descriptor(source)


def test_duplicates_are_the_same_files_and_not_inheritable() -> None:
    numbers = (memfd(b"a"), memfd(b"b"))
    made = duplicate((*numbers, numbers[0]))
    assert len({*numbers, *made}) == 5
    for fd in numbers:
        os.close(fd)
    assert [os.pread(fd, 2, 0) for fd in made] == [b"a", b"b", b"a"]
    assert not any(os.get_inheritable(fd) for fd in made)
    close_fds(made)
    assert closing_settled(SETTLE_SECONDS)
    assert not any(map(is_open, made))


def test_failed_duplication_leaves_nothing_open() -> None:
    good = memfd()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"Bad file descriptor"):
        duplicate((good, good, 1 << 30, good))
    assert set(os.listdir("/proc/self/fd")) == before
    os.close(good)


# SharedFds


@pytest.mark.parametrize("holders", [1, 2, 5])
def test_shared_fds_close_with_their_last_holder(holders: int) -> None:
    numbers = (memfd(), memfd())
    released: list[int] = []
    shared = SharedFds(numbers, released.append)
    for _ in range(holders - 1):
        shared.hold()
    for _ in range(holders - 1):
        shared.release()
        assert shared.fds == numbers
        assert released == []
    assert all(map(is_open, numbers))
    shared.release()
    assert closing_settled(SETTLE_SECONDS)
    assert not any(map(is_open, numbers))
    assert released == [2]
    assert shared.fds == ()


def test_shared_fds_released_too_often_close_nothing_more() -> None:
    shared = SharedFds((number := memfd(),))
    shared.release()
    assert closing_settled(SETTLE_SECONDS)
    successor = memfd()
    assert successor == number
    for _ in range(3):
        shared.release()
        shared.hold()
        shared.hold()
        shared.release()
    assert closing_settled(SETTLE_SECONDS)
    assert is_open(successor)
    os.close(successor)


# Closing what is foreign


class Lingering:
    """TCP sockets whose close blocks: SO_LINGER of ten minutes, and data that the other side does not read."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._readers: list[socket.socket] = []

    def make(self) -> int:
        sock = socket.create_connection(self._listener.getsockname())
        self._readers.append(self._listener.accept()[0])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
        sock.setblocking(False)
        try:
            while True:
                sock.send(bytes(65536))
        except BlockingIOError:
            return sock.detach()

    def free(self) -> None:
        """Let every pending close come to its end: with unread data, closing resets the connection."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        self._listener.close()


@pytest.fixture
def lingering() -> Iterator[Lingering]:
    made = Lingering()
    yield made
    made.free()
    assert closing_settled(SETTLE_SECONDS)


def end_of_file(fd: int) -> bool:
    """Wait until all other ends were closed; False when that does not come."""
    with open(fd, "rb", buffering=0) as file:
        return bool(select.select([file], [], [], SETTLE_SECONDS)[0]) and file.read(1) == b""


def end_of_pipe() -> tuple[int, int]:
    return os.pipe()


def end_of_socketpair() -> tuple[int, int]:
    here, there = socket.socketpair()
    return here.detach(), there.detach()


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("other", [end_of_pipe, end_of_socketpair])
def test_lingering_socket_holds_up_no_other_closing(
    lingering: Lingering, together: bool, count: int, other: Callable[[], tuple[int, int]]
) -> None:
    watched, number = other()
    slow = [lingering.make() for _ in range(count)]
    if together:
        close_fds((*slow, number))
    else:
        for fd in (*slow, number):
            close_fds((fd,))
    # The other one was closed, and the lingering ones are still being closed.
    assert end_of_file(watched)
    assert not closing_settled(0)
    lingering.free()
    assert closing_settled(SETTLE_SECONDS)


def test_lingering_socket_unread_in_another_holds_up_no_other_closing(lingering: Lingering) -> None:
    here, there = socket.socketpair()
    slow = lingering.make()
    socket.send_fds(here, [b"x"], [slow])
    close_fds((slow,))
    assert closing_settled(SETTLE_SECONDS)
    watched, number = end_of_pipe()
    close_fds((there.detach(), number))
    assert end_of_file(watched)
    assert not closing_settled(0)
    here.close()


def test_lingering_sockets_in_every_thread_hold_up_sockets_alone(
    lingering: Lingering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockbus.fd, "_closer", sockbus.fd._Closer(sockbus.fd._Closer()))
    monkeypatch.setattr(sockbus.fd._Closer, "MAX_THREADS", 2)
    watched_socket, sock = end_of_socketpair()
    close_fds((*(lingering.make() for _ in range(3)), sock))
    for _ in range(3):
        watched, number = end_of_pipe()
        close_fds((number,))
        assert end_of_file(watched)
    assert not closing_settled(0)
    lingering.free()
    assert end_of_file(watched_socket)
    assert closing_settled(SETTLE_SECONDS)


def test_closing_a_lingering_fd_does_not_wait(lingering: Lingering) -> None:
    fd = Fd(lingering.make())
    fd.close()
    assert fd.closed
    assert not closing_settled(0)


def test_closing_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    closed, number, file = memfd(), memfd(), memfd()
    os.close(closed)
    close_fds((closed, number))
    assert closing_settled(SETTLE_SECONDS)
    assert not is_open(number)
    assert f"closing fd {closed}: [Errno 9] Bad file descriptor" in caplog.text
    fd = Fd(file)
    os.close(file)
    fd.close()
    assert f"closing fd {file}: " in caplog.text


def test_closing_nothing_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockbus.fd, "_closer", None)
    close_fds(())
    assert sockbus.fd._closer is None


def test_descriptors_are_closed_later_where_no_thread_can_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    closer = sockbus.fd._Closer()
    first, second = memfd(), memfd()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        closer.close((first,))
    assert is_open(first)
    assert "can't start new thread" in caplog.text
    closer.close((second,))
    assert closer.settled(SETTLE_SECONDS)
    assert not is_open(first)
    assert not is_open(second)


def test_idle_threads_end_and_others_take_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockbus.fd._Closer, "IDLE_SECONDS", 0.0)
    closer = sockbus.fd._Closer()
    for _ in range(3):
        before = set(threading.enumerate())
        numbers = [memfd() for _ in range(4)]
        closer.close(numbers)
        for thread in set(threading.enumerate()) - before:
            thread.join(SETTLE_SECONDS)
            assert not thread.is_alive()
        assert closer.settled(SETTLE_SECONDS)
        assert not any(map(is_open, numbers))


def test_many_descriptors_from_many_threads_are_each_closed_once(caplog: pytest.LogCaptureFixture) -> None:
    numbers = [[memfd() for _ in range(50)] for _ in range(8)]
    threads = [threading.Thread(target=lambda some=some: [close_fds((fd,)) for fd in some]) for some in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert closing_settled(SETTLE_SECONDS)
    assert not any(is_open(fd) for some in numbers for fd in some)
    assert caplog.text == ""


# Processes


def output_of(program: str) -> str:
    """What a program printed; it has to end by itself, well and without complaints."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_forked_child_closes_with_threads_of_its_own() -> None:
    program = """
        import os, sockbus.fd, warnings
        from sockbus.fd import close_fds, closing_settled
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        first, second = (os.open(os.devnull, os.O_RDONLY) for _ in range(2))
        close_fds((first,))
        assert closing_settled(60)
        child = os.fork()
        close_fds((second,))
        settled = closing_settled(60)
        try:
            os.fstat(second)
        except OSError:
            os.write(1, b"closed\\n" if settled else b"not settled\\n")  # whole lines: two write to one pipe
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    """
    assert output_of(program) == "closed\nclosed\n"


def test_forked_child_closes_its_copies_of_what_was_queued() -> None:
    program = """
        import os, threading, sockbus.fd, warnings
        from sockbus.fd import close_fds, closing_settled
        warnings.simplefilter("ignore", DeprecationWarning)
        queued = os.open(os.devnull, os.O_RDONLY)
        with sockbus.fd._closer._lock:  # no thread gets at the queue
            close_fds((queued,))
            child = os.fork()
        if not child:
            settled = closing_settled(60)
            try:
                os.fstat(queued)
            except OSError:
                os.write(1, b"closed in the child\\n" if settled else b"not settled\\n")
            os._exit(0)
        os.waitpid(child, 0)
        assert closing_settled(60)
    """
    assert output_of(program) == "closed in the child\n"


def test_socket_that_outlives_the_interpreter_does_not_block_its_end() -> None:
    program = """
        import builtins, socket
        from sockbus.fd import Fd
        builtins.kept = Fd(socket.socketpair()[0].detach())  # closed when the last modules go, without threads
        print("ends")
    """
    assert output_of(program) == "ends\n"


@pytest.mark.parametrize("kind", ["memfd", "pipe"])
def test_file_in_memory_or_pipe_is_closed_at_once(kind: str) -> None:
    fds = (os.memfd_create("here"),) if kind == "memfd" else os.pipe()
    close_fds(fds)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
