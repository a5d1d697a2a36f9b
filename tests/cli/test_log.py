"""The broker's log: one line for each event, dropped and counted where there is no room."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.brokers import PATIENCE, environment

PROGRAM = """
import logging, sys
from sockbus.cli.log import start_logging
log = start_logging()
if sys.argv[1] == "lines":
    logging.getLogger("sockbus.broker").warning("two\\nlines and %s", "\\x1b[31m")
    log.debug("not shown")
    log.info("x" * 10000)
else:
    for _ in range(2000):
        log.info("y" * 100)
    print("full", flush=True)
    sys.stdin.readline()
    log.info("last")
"""


def start(what: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def test_event_is_one_line_with_time_and_level() -> None:
    _, errors = start("lines").communicate(timeout=PATIENCE)
    first, second = errors.decode().splitlines()
    day, time, level, *words = first.split()
    assert (len(day), len(time), level, words) == (10, 12, "WARNING", ["two\\nlines", "and", "\\u001b[31m"])
    assert " INFO xxx" in second
    assert len(second) < 4096


def test_lines_that_nobody_reads_are_dropped_and_counted() -> None:
    with start("flood") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"full\n"  # it did not wait for its reader
        seen = os.read(process.stderr.fileno(), 1 << 20).splitlines()
        process.stdin.write(b"\n")
        process.stdin.close()
        last = process.stderr.read().decode().splitlines()
    assert last == [last[0]]
    assert last[0].endswith(f"INFO last ({2000 - len(seen)} lines before this were dropped: nobody read them)")
