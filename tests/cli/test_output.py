"""What is shown cannot speak to a terminal, and what an open file is called."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sockbus.cli.outcome import ReaderGone
from sockbus.cli.output import MAX_SENTENCE, complain, describe_fd, escaped, watch_reader, write
from tests.brokers import PATIENCE

CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x2028, 0x2029, 0x202E, 0x2066, 0x2069, 0xD800]


@pytest.mark.parametrize("code", CONTROLS)
def test_control_characters_are_escaped_as_json_would(code: int) -> None:
    shown = escaped(f"a{chr(code)}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == f"a{chr(code)}b"


@pytest.mark.parametrize("text", ["plain", "grün", "日本語\u3000です", "👩\u200d👩\u200d👧", "back\\slash", '"quoted"'])
def test_text_without_controls_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_line_feeds_and_tabs_may_stay_and_nothing_else() -> None:
    assert escaped("a\n\tb\r\x1b[0m\x0b", lines=True) == "a\n\tb\\r\\u001b[0m\\u000b"


@pytest.mark.parametrize(
    ("sentence", "line"),
    [
        ("no broker", "sockbus: no broker\n"),
        ("two\nlines \r\n  and\n\nmore\n", "sockbus: two lines and more\n"),
        ("\x1b[31mred\x07", "sockbus: \\u001b[31mred\\u0007\n"),
        ("x" * 5000, f"sockbus: {'x' * MAX_SENTENCE}…\n"),
    ],
)
def test_complaint_is_one_line(sentence: str, line: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    complain(sentence)
    assert capfdbinary.readouterr() == (b"", line.encode())


def _file(place: Path) -> int:
    (place / "file").write_bytes(b"12345")
    return os.open(place / "file", os.O_RDONLY)


def _memfd(_: Path) -> int:
    fd = os.memfd_create("some name")
    os.write(fd, b"123")
    return fd


def _fifo(place: Path) -> int:
    os.mkfifo(place / "fifo")
    return os.open(place / "fifo", os.O_RDONLY | os.O_NONBLOCK)


@pytest.mark.parametrize(
    ("make", "kind", "size"),
    [
        (_file, "file", 5),
        (_memfd, "memfd", 3),
        (_fifo, "pipe", None),
        (lambda place: os.open(place, os.O_RDONLY), "directory", None),
        (lambda _: os.open("/dev/null", os.O_RDONLY), "device", None),
        (lambda _: socket.socket(socket.AF_UNIX).detach(), "socket", None),
        (lambda _: os.pidfd_open(os.getpid()), "other", None),
    ],
)
def test_open_file_has_a_kind_and_perhaps_a_size(
    make: Callable[[Path], int], kind: str, size: int | None, tmp_path: Path
) -> None:
    fd = make(tmp_path)
    try:
        assert describe_fd(fd) == (kind, size)
    finally:
        os.close(fd)


@contextlib.contextmanager
def pipe_on_stdout() -> Iterator[int]:
    """The other end, which the block closes. No fixture, for pytest puts a file of its own there before a test."""
    before = os.dup(1)
    receive, send = os.pipe()
    os.dup2(send, 1)
    os.close(send)
    try:
        yield receive
    finally:
        os.dup2(before, 1)
        os.close(before)


def test_what_nobody_reads_is_left_at_the_deadline() -> None:
    data = os.urandom(300_000)
    with pipe_on_stdout() as reader:
        rest = write(data, deadline=0.0)
        assert 0 < len(rest) < len(data)
        began = time.monotonic()
        assert write(rest, deadline=began + 0.05) == rest
        assert time.monotonic() - began >= 0.05
        assert os.read(reader, len(data)) + rest == data
        os.close(reader)


def test_lines_are_written_as_a_whole() -> None:
    lines = [b"%d %b\n" % (number, number % 1000 * b"x") for number in range(1000)]
    with pipe_on_stdout() as reader:
        rest = write(b"".join(lines), deadline=0.0)
        assert os.read(reader, 1 << 20).endswith(b"\n")
        os.close(reader)
    assert rest.partition(b"\n")[0] + b"\n" in lines


def test_what_is_read_meanwhile_is_written_within_the_deadline() -> None:
    data = os.urandom(300_000)
    came: list[bytes] = []
    with pipe_on_stdout() as reader:

        def read() -> None:
            with open(reader, "rb") as file:
                came.append(file.read(len(data)))

        reading = threading.Thread(target=read)
        reading.start()
        assert not write(data, deadline=time.monotonic() + PATIENCE)
        reading.join()
    assert came == [data]


def test_reader_that_has_gone_is_noticed_without_writing_and_by_writing() -> None:
    gone = threading.Event()
    with pipe_on_stdout() as reader:
        watch_reader(gone.set)
        assert write(b"x", deadline=0.0) == b""
        assert not gone.is_set()
        os.close(reader)
        assert gone.wait(PATIENCE)
        with pytest.raises(ReaderGone):
            write(b"x", deadline=0.0)


def test_only_a_pipe_has_a_reader_that_can_go() -> None:
    before = threading.active_count()
    saved = os.dup(1)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
        watch_reader(pytest.fail)
        os.dup2(saved, 1)
    os.close(saved)
    assert threading.active_count() == before
