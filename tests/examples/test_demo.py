"""The demonstration succeeds on real files, fails when anything is wrong, and leaves nothing behind either way.

Most of it is run in this process, where what it says is the moment at which something is done to it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples.demo.counts import Counts, count, total
from examples.demo.stage import WORKERS, demonstrate, sources
from examples.demo.verdict import Result, Worker, pronounce, verdict
from tests.brokers import PATIENCE, ROOT, Program, environment

Deed = Callable[[], object]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A few files, one of them empty."""
    paths = [tmp_path / f"file{number}" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_text(f"line of {path}\n" * number * 1000)
    return paths


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test after which a process or a temporary file of the demonstration is still there.

    ``tmp_path`` comes first, so that pytest does not put its own directory into ``place``.
    """
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    before = descendants(os.getpid())
    yield
    assert list(place.iterdir()) == []
    assert descendants(os.getpid()) <= before


def descendants(pid: int) -> set[int]:
    """The processes below one, from their parents in proc(5)."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything, spaces and parentheses too.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


class Ear:
    """Hears what the demonstration says, and does something at the first line that holds a text."""

    def __init__(self, at: str = "", deed: Callable[[int], object] = lambda _: None) -> None:
        self.lines: list[str] = []
        self._at = at
        self._deed = deed

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if self._at and self._at in line:
            self._at = ""
            # The second column is the pid of whom the line is about.
            self._deed(int(line.split()[1]))

    @property
    def complaint(self) -> str:
        """The one line that says why it failed. What was under way may still have been told after it."""
        (line,) = [line for line in self.lines if line.startswith("demo: ")]
        assert not any(line.startswith("verdict") for line in self.lines)
        return line


# It works


def test_demo_reads_the_sources_of_sockbus_and_all_matches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    output = done.stdout.decode()
    assert len(re.findall(r"^verdict: .*: yes$", output, re.M)) == 5
    assert "NO" not in output
    found = re.findall(r"^(worker-\d) +(\d+) +(\w+) +job \d+, (\S+), through fd \d+: (.*)$", output, re.M)
    assert sorted(name for _, _, _, name, _ in found) == [str(path.relative_to(ROOT)) for path in sources()]
    assert {name: transport for name, _, transport, _, _ in found} == WORKERS
    assert all(said == str(count((ROOT / name).read_bytes())) for *_, name, said in found)
    assert len({pid for _, pid, *_ in found}) == len(WORKERS)


# It can fail


async def test_file_that_changes_meanwhile_fails_it(files: list[Path]) -> None:
    ear = Ear("job 3,", lambda _: files[3].write_text("changed"))
    assert await demonstrate(files, ear) == 1, ear.lines
    assert all(any(str(path) in line for line in ear.lines) for path in files)
    wrong = [line for line in ear.lines if ": NO: " in line]
    assert "each count and hash" in wrong[0]
    assert "the totals" in wrong[1]
    assert len(wrong) == 2


async def test_worker_that_is_killed_fails_it(files: list[Path]) -> None:
    ear = Ear("worker-1", lambda pid: os.kill(pid, signal.SIGKILL))
    assert await demonstrate(files, ear) == 1, ear.lines
    assert re.fullmatch(r"demo: the worker-1 \(pid \d+\) ended with signal 9: it said nothing", ear.complaint)


@pytest.mark.parametrize("who", ["broker", "publisher"])
async def test_broker_or_publisher_that_is_killed_fails_it(who: str, files: list[Path]) -> None:
    def kill(_: int) -> None:
        (pid,) = {int(line.split()[1]) for line in ear.lines if line.startswith(who)}
        os.kill(pid, signal.SIGKILL)

    ear = Ear("has published", kill)
    assert await demonstrate(files, ear) == 1, ear.lines
    # Its death, or what came of it: whichever was noticed first.
    assert ear.complaint


async def test_worker_that_stands_still_fails_it_when_time_is_up(files: list[Path]) -> None:
    ear = Ear("worker-2", lambda pid: os.kill(pid, signal.SIGSTOP))
    assert await demonstrate(files, ear, limit=2.0) == 1
    assert ear.complaint == "demo: it is not done after 2 s"


async def test_file_that_cannot_be_opened_fails_it(files: list[Path], tmp_path: Path) -> None:
    ear = Ear()
    assert await demonstrate([*files, tmp_path / "missing"], ear) == 1
    assert re.fullmatch(r"demo: the publisher .* exit code 1: publisher: .*missing'", ear.complaint)


async def test_broker_that_cannot_start_fails_it(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)  # longer than the path of a UNIX socket may be, unix(7)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    ear = Ear()
    assert await demonstrate(files, ear) == 1, ear.lines
    assert re.fullmatch(r"demo: the broker \(pid \d+\) ended with exit code 2: .*107.*", ear.complaint)
    assert list(deep.iterdir()) == []


# It is stopped


@pytest.mark.parametrize(
    ("at", "number", "code"),
    [("broker", signal.SIGTERM, 143), ("job ", signal.SIGHUP, 129)],
)
async def test_signal_ends_it(at: str, number: signal.Signals, code: int, files: list[Path]) -> None:
    ear = Ear(at, lambda _: signal.raise_signal(number))
    assert await demonstrate(files, ear) == code, ear.lines
    assert ear.complaint == f"demo: stopped by {number.name}"


def test_ctrl_c_at_the_terminal_ends_it_without_a_traceback() -> None:
    # A session of its own is a terminal's foreground process group: Ctrl-C goes to all of it.
    command = ["setsid", sys.executable, "-m", "examples.demo"]
    with Program(command, env=environment(PYTHONPATH=str(ROOT))) as program:
        while not program.out.next().startswith("worker-1"):
            pass
        children = descendants(program.process.pid)
        os.killpg(program.process.pid, signal.SIGINT)
        assert program.code() == 130
        assert program.out.rest().endswith(b"demo: stopped by SIGINT\n")
        assert program.err.rest() == b""
    assert children
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_output_that_nobody_reads_ends_it_quietly() -> None:
    with Program([sys.executable, "-m", "examples.demo"], env=environment(PYTHONPATH=str(ROOT))) as program:
        program.out.next()
        assert program.process.stdout is not None
        program.process.stdout.close()
        assert (program.code(), program.err.rest()) == (1, b"")


# The verdict

HELD = [count(b"a\n"), count(b""), count(b"b\nb\n")]
ANN, BOB = Worker("ann", "seqpacket", 7), Worker("bob", "stream", 8)
RESULTS = [Result(job, counts, who, who) for job, counts, who in zip(range(3), HELD, (ANN, BOB, ANN), strict=True)]


def test_verdict_on_right_results_is_exit_code_0() -> None:
    said: list[str] = []
    assert pronounce(verdict(HELD, RESULTS[::-1], total(HELD)), said.append) == 0
    assert said
    assert all(line.endswith(": yes") for line in said)


@pytest.mark.parametrize(
    ("results", "totals", "facts"),
    [
        pytest.param(RESULTS[:2], HELD, ["exactly once", "totals"], id="missing"),
        pytest.param([*RESULTS, RESULTS[1]], HELD, ["exactly once", "totals"], id="twice"),
        pytest.param([*RESULTS, replace(RESULTS[0], job=3)], HELD, ["exactly once", "totals"], id="unknown"),
        pytest.param([replace(RESULTS[0], job=-1), *RESULTS[1:]], HELD, ["exactly once"], id="negative"),
        pytest.param(
            [replace(RESULTS[0], counts=HELD[1]), *RESULTS[1:]], HELD, ["count and hash", "totals"], id="wrong-file"
        ),
        pytest.param(
            [replace(RESULTS[0], counts=replace(HELD[0], sha256="0" * 64)), *RESULTS[1:]],
            HELD,
            ["count and hash", "totals"],
            id="wrong-hash",
        ),
        pytest.param([replace(RESULTS[0], worker=BOB), *RESULTS[1:]], HELD, ["the worker that it names"], id="forged"),
        pytest.param([replace(result, worker=ANN, sender=ANN) for result in RESULTS], HELD, ["STREAM"], id="no-stream"),
        pytest.param(
            [replace(result, worker=BOB, sender=BOB) for result in RESULTS], HELD, ["SEQPACKET"], id="no-seqpacket"
        ),
        pytest.param(RESULTS, HELD[:2], ["totals"], id="wrong-totals"),
        pytest.param([], [], ["exactly once", "SEQPACKET", "totals"], id="nothing"),
    ],
)
def test_verdict_on_wrong_results_is_exit_code_1(results: list[Result], totals: list[Counts], facts: list[str]) -> None:
    said: list[str] = []
    assert pronounce(verdict(HELD, results, total(totals)), said.append) == 1
    wrong = [line for line in said if ": NO: " in line]
    assert len(wrong) == len(facts)
    assert all(fact in line for fact, line in zip(facts, wrong, strict=True))
