"""The processes of one benchmark, as the process that measures sees them.

A ``Crew`` starts programs and ends every one of them, by its pid, however the run ends; a signal that would
end the run is held back while one is being started, so that none is born unknown. They speak in lines of
JSON: orders on the program's standard input, answers on its standard output. Nobody sleeps to wait for
another, and one that dies is told from one that is slow.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import IO, Any, NoReturn, Self, final

__all__ = ["PATIENCE", "BenchmarkError", "Crew", "Program", "end_on_signals"]

# Seconds that one answer may take.
PATIENCE = 120.0
# Seconds that a program may take to end when it is told to.
ENDING = 10.0


class BenchmarkError(Exception):
    """The run cannot go on; the text is one sentence for people."""


@final
class _Signals:
    """SIGINT and SIGTERM: the first ends the run, what follows is ignored while it cleans up."""

    def __init__(self) -> None:
        self._came = 0
        self._held = False

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish before a signal takes effect."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            self._end()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._came = number
        if not self._held:
            self._end()

    def _end(self) -> NoReturn:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + self._came)


_signals = _Signals()
end_on_signals = _signals.install


@final
class Program:
    """One process. ``role`` is its name in tables and errors."""

    def __init__(self, role: str, command: Sequence[str], fds: Sequence[int], errors: IO[bytes]) -> None:
        self.role = role
        self._lines: collections.deque[bytes] = collections.deque()
        self._rest = b""
        # A file, for nobody reads it while the program runs, and a full pipe would stop it.
        self._errors = errors
        # In a group of its own: Ctrl-C at the terminal is for the process that measures, which then ends the others.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=fds,
            process_group=0,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._output = self._process.stdout

    def fileno(self) -> int:
        """The descriptor to wait at for its output."""
        return self._output.fileno()

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time so far, of all its threads (clock_getcpuclockid(3))."""
        return time.clock_gettime(~self._process.pid << 3 | 2)

    def tell(self, order: object) -> None:
        """Give an order. That it has died meanwhile is seen when its answer is waited for."""
        with contextlib.suppress(BrokenPipeError):
            self._input.write(json.dumps(order).encode() + b"\n")

    def read(self) -> None:
        """Take what it has written; BenchmarkError when it has ended."""
        came = os.read(self.fileno(), 1 << 16)
        if not came:
            raise BenchmarkError(self._obituary())
        *lines, self._rest = (self._rest + came).split(b"\n")
        self._lines.extend(lines)

    @property
    def lines(self) -> int:
        """Whole lines that are there."""
        return len(self._lines)

    def line(self) -> str:
        """The next line; one must be there."""
        return self._lines.popleft().decode()

    def signal(self, number: signal.Signals) -> None:
        """Send it one."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait until it has ended by itself, or by a signal: its exit code. BenchmarkError when it does not."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"the {self.role} did not end within {PATIENCE:g} s") from None

    def finished(self) -> None:
        """Wait until it has ended by itself; BenchmarkError unless it did so well."""
        if self.ended():
            raise BenchmarkError(self._obituary())

    def end(self) -> None:
        """End the process and wait until it is gone."""
        process = self._process
        process.terminate()
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._input.close()
        self._output.close()

    def _obituary(self) -> str:
        try:
            code = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            return f"the {self.role} has closed its output and runs on; is its code changed?"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing on stderr")
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return f"the {self.role} ended with {how}: {last}"


@final
class Crew:
    """The programs of one benchmark: a context manager that ends them all."""

    def __init__(self) -> None:
        self._programs: list[Program] = []
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _signals.held():
            self._ends.close()

    def broker(self, transport: str) -> tuple[Program, str]:
        """Start a broker: its process, and its address for that transport."""
        place = self.place()
        broker, (_, tcp) = self.broker_at(f"unix:{place}/bus", "tcp:127.0.0.1:0")
        return broker, tcp if transport == "tcp" else f"{transport}:{place}/bus/{transport}"

    def place(self) -> str:
        """A directory that is removed in the end."""
        with _signals.held():
            return self._ends.enter_context(tempfile.TemporaryDirectory(prefix="sockbus-benchmark-"))

    def broker_at(self, *asked: str) -> tuple[Program, list[str]]:
        """Start a broker: its process, and where it listens."""
        receive, send = os.pipe()
        with open(receive, "rb") as ready:
            try:
                command = [sys.executable, "-m", "sockbus", "broker", *asked, "--ready-fd", str(send)]
                broker = self._start("broker", command, (send,))
            finally:
                os.close(send)
            if not select.select([ready], [], [], PATIENCE)[0]:
                raise BenchmarkError(f"the broker was not ready within {PATIENCE:g} s; is the machine overloaded?")
            ready.read()
        # Its end closes the pipe too: the lines are what tells, the pipe only when to look.
        self._wait_for_lines(broker, count=len(asked))
        return broker, [broker.line().removeprefix("listening on ") for _ in asked]

    def start(self, role: str, program: Callable[..., None], *fds: int, **options: object) -> Program:
        """Start ``program(**options)``, a function of this package, with these fds; not ready yet."""
        target = [program.__module__, program.__name__, json.dumps(options)]
        return self._start(role, [sys.executable, "-m", "benchmarks.programs", *target], fds)

    def dismiss(self, program: Program) -> None:
        """One has ended, or ends now, and is not missed."""
        self._programs.remove(program)
        program.end()

    def answers(self, *programs: Program) -> list[Any]:
        """One answer of each; BenchmarkError when any of the crew has ended, or one has not answered in time."""
        self._wait_for_lines(*programs)
        return [json.loads(program.line()) for program in programs]

    def watch(self, seconds: float) -> None:
        """Wait for so long; BenchmarkError when any of the crew has ended."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for program in select.select(self._programs, [], [], left)[0]:
                program.read()

    def _start(self, role: str, command: Sequence[str], fds: Sequence[int]) -> Program:
        with _signals.held():
            errors = self._ends.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
            program = Program(role, command, fds, errors)
            self._ends.callback(program.end)
            self._programs.append(program)
        return program

    def _wait_for_lines(self, *programs: Program, count: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE
        while late := [program for program in programs if program.lines < count]:
            readable = select.select(self._programs, [], [], max(0.0, deadline - time.monotonic()))[0]
            if not readable:
                roles = ", ".join(program.role for program in late)
                raise BenchmarkError(
                    f"no answer within {PATIENCE:g} s from: {roles}; ask for less with --messages or --seconds"
                )
            for program in readable:
                program.read()
