"""Real processes for tests: a broker, and any program whose lines are waited for.

A ``BrokerProcess`` is ``sockbus broker`` on a UNIX directory and a TCP port of the system's choice. Waiting has a
deadline that no working program meets; nothing here sleeps or guesses. What a test leaves running is killed by its id.
A conftest.py brings the fixtures ``broker`` and ``place`` by importing them.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Seconds after which a process that was waited for is stuck.
PATIENCE = 30.0


def command(*arguments: str) -> list[str]:
    """The command line of sockbus, as this tree has it."""
    return [sys.executable, "-m", "sockbus", *arguments]


def environment(**changes: str | None) -> dict[str, str]:
    """Ours, without an address of its own, and with warnings being errors; None takes a variable away."""
    values = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "SOCKBUS_ADDRESS": None, **changes}
    return {name: value for name, value in values.items() if value is not None}


class Done(NamedTuple):
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


def run(*arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Done:
    """Run the command line to its end."""
    done = subprocess.run(
        command(*arguments),
        env=environment() if env is None else env,
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Lines:
    """The lines that come out of a pipe, waited for."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._held = b""

    def next(self) -> str:
        """The next line without its end; "" at the end of the file."""
        while b"\n" not in self._held:
            if not (more := self._read()):
                line, self._held = self._held, b""
                return line.decode()
            self._held += more
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    def rest(self) -> bytes:
        """All until the end of the file."""
        while more := self._read():
            self._held += more
        held, self._held = self._held, b""
        return held

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._pipe], [], [], PATIENCE)
        if not ready:
            raise TimeoutError(f"nothing more came within {PATIENCE:g} s after {self._held!r}")
        return os.read(self._pipe.fileno(), 1 << 16)


class Program:
    """A running program with pipes on stdout and stderr, as a context manager that kills what still runs."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            list(arguments),
            env=environment() if env is None else env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = Lines(self.process.stdout)
        self.err = Lines(self.process.stderr)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def code(self) -> int:
        """The exit code, once it has ended; the negative number of a signal that killed it."""
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        with self.process:
            self.process.wait()


class BrokerProcess:
    """``sockbus broker``, as a context manager: stopped by SIGTERM at the end, with exit code 0, or killed when stuck.

    ``unix``, ``seqpacket``, ``stream`` and ``tcp`` are its addresses; ``printed`` the lines of its stdout so far.
    """

    def __init__(self, *options: str, tcp: str = "tcp:127.0.0.1:0", env: Mapping[str, str] | None = None) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="sockbus-")  # pytest's own is too long for a socket's path
        self.directory = Path(self._place.name) / "bus"
        self.unix = f"unix:{self.directory}"
        self.seqpacket = f"seqpacket:{self.directory}/seqpacket"
        self.stream = f"stream:{self.directory}/stream"
        self.tcp = tcp
        self._options = options
        self._env = env
        self._out = Path(self._place.name) / "stdout"
        self._err = Path(self._place.name) / "stderr"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def printed(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def log(self) -> str:
        return self._err.read_text()

    def address(self, transport: str) -> str:
        """The address that leads to ``seqpacket``, ``stream`` or ``tcp``."""
        return {"seqpacket": self.seqpacket, "stream": self.stream, "tcp": self.tcp}[transport]

    def start(self) -> None:
        """Run it until all addresses accept; again after it was stopped or killed, on the same addresses."""
        receive, send = os.pipe()
        with open(receive, "rb", closefd=True) as ready:
            with self._out.open("wb") as out, self._err.open("wb") as err:
                self.process = subprocess.Popen(
                    command("broker", self.unix, self.tcp, "--ready-fd", str(send), *self._options),
                    env=environment() if self._env is None else self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=[send],
                )
            os.close(send)
            said = Lines(ready).rest()
        if said != b"ready\n":
            self.kill()
            raise AssertionError(f"the broker did not start: {said!r}\n{self.log}")
        self.tcp = next(line for line in self.printed if "tcp:" in line).removeprefix("listening on ")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it as a user would; AssertionError when it does not end with exit code 0."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the broker did not stop within {PATIENCE:g} s\n{self.log}") from None
        self.process = None
        assert code == 0, self.log

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._place.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process is not None:
                self.stop()
        finally:
            self._place.cleanup()


@pytest.fixture
def broker() -> Iterator[BrokerProcess]:
    """A broker of this test's own."""
    with BrokerProcess() as broker:
        yield broker


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="sockbus-") as name:
        yield Path(name)
