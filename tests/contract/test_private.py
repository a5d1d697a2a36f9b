"""The default address: a client goes nowhere that another user could have prepared."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sockbus import BusState, ConnectError, PermissionDenied
from sockbus.protocol.frame import Kind
from tests.broker.outside import eventually
from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime
from tests.contract.scripted import Scripted
from tests.contract.short import short_directory

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something to another user")


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of the default address, which does not exist yet."""
    with short_directory() as path:
        monkeypatch.delenv("SOCKBUS_ADDRESS", raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        yield path / "sockbus"


def open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o710)


def file(path: Path) -> None:
    path.touch(0o600)


def link(path: Path) -> None:
    path.with_name("elsewhere").mkdir(0o700)
    path.symlink_to("elsewhere")


def foreign(path: Path) -> None:
    path.mkdir(0o700)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (open_to_others, r"is open to other users \(mode 0710\); run chmod 700"),
        (file, "is not a directory"),
        (link, "is not a directory"),
        pytest.param(foreign, rf"belongs to user {NOBODY}, not to you", marks=as_root),
    ],
)
async def test_directory_that_is_not_ones_own_alone_is_refused(
    runtime: Runtime, default: Path, prepare: Callable[[Path], None], text: str
) -> None:
    prepare(default)
    with pytest.raises(PermissionDenied, match=f"{default} {text}"):
        async with runtime.connect():
            pass


async def test_directory_that_cannot_be_looked_at_is_a_connect_error(
    runtime: Runtime, default: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default.touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(default))
    with pytest.raises(ConnectError, match=rf"no broker at unix:{default}/sockbus \(Not a directory\); start one with"):
        async with runtime.connect():
            pass


async def test_directory_that_was_named_may_be_open(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with BrokerProcess() as broker:
        broker.directory.chmod(0o755)
        async with runtime.connect(broker.unix) as bus:
            assert bus.transport == "seqpacket"
        monkeypatch.setenv("SOCKBUS_ADDRESS", broker.unix)
        async with runtime.connect() as bus:
            assert bus.transport == "seqpacket"


ACCEPT = """
import os, socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
listener.listen()
print("ready", flush=True)
while True:
    listener.accept()
"""


@contextlib.contextmanager
def strangers_socket(path: Path) -> Iterator[None]:
    """A socket on which another user listens."""
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        arguments = [sys.executable, "-c", ACCEPT, str(listener.fileno())]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, pass_fds=[listener.fileno()]) as stranger:
            try:
                assert stranger.stdout is not None
                assert stranger.stdout.readline() == b"ready\n"
                yield
            finally:
                stranger.send_signal(signal.SIGKILL)


@as_root
async def test_broker_of_another_user_is_refused(runtime: Runtime, default: Path) -> None:
    with strangers_socket(default / "seqpacket"):
        before = os.listdir("/proc/self/fd")
        with pytest.raises(PermissionDenied, match=f"user {NOBODY}"):
            async with runtime.connect():
                pass
        assert os.listdir("/proc/self/fd") == before


async def test_directory_that_is_open_for_a_moment_does_not_end_a_bus(
    runtime: Runtime, default: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Whoever could end it by that could end everybody's.
    default.mkdir(0o700)
    with contextlib.closing(Scripted(default / "stream")) as script:

        def play() -> None:
            first = script.accept()
            first.send(first.welcome())
            default.chmod(0o755)
            first.close()
            eventually(lambda: any("is made for now" in record.getMessage() for record in caplog.records))
            default.chmod(0o700)
            then = script.accept()
            then.send(then.welcome())
            then.send(then.ok(Kind.FLUSH))
            # Its own, and that of leaving.
            then.send(then.ok(Kind.FLUSH))

        async def use() -> None:
            async with runtime.connect() as bus:
                while bus.state is BusState.CONNECTED:
                    await bus.state_changed()
                await bus.publish("t", "waits")
                await bus.flush()

        await runtime.gather(lambda: runtime.in_thread(play), use)
    (said,) = [record.getMessage() for record in caplog.records if "is made for now" in record.getMessage()]
    assert "is open to other users" in said
