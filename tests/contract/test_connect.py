"""Connecting: which address, by which road, and what is said when none leads to a broker."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sockbus import Address, ConnectError
from sockbus.transport import dial, inheritance
from tests.brokers import BrokerProcess, Program, command, environment
from tests.contract.peers import program
from tests.contract.runtime import Runtime
from tests.contract.short import short_directory

KINDS = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@contextlib.contextmanager
def listening(path: Path, kind: str, backlog: int = 16) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, KINDS[kind]) as sock:
        sock.bind(str(path))
        sock.listen(backlog)
        yield sock


@contextlib.contextmanager
def broker_at_default(directory: Path) -> Iterator[None]:
    """A broker that was given no address."""
    receive, send = os.pipe()
    with open(receive, "rb") as ready:
        env = environment(XDG_RUNTIME_DIR=str(directory))
        with Program(command("broker", "--ready-fd", str(send)), env=env, pass_fds=[send]):
            os.close(send)
            assert ready.read() == b"ready\n"
            yield


async def test_default_address_is_the_environments(
    runtime: Runtime, directory: Path, monkeypatch: pytest.MonkeyPatch, common_broker: BrokerProcess
) -> None:
    monkeypatch.delenv("SOCKBUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    with broker_at_default(directory):
        async with runtime.connect() as bus:
            assert bus.address == f"seqpacket:{directory}/sockbus/seqpacket"
        monkeypatch.setenv("SOCKBUS_ADDRESS", common_broker.stream)
        async with runtime.connect() as bus:
            assert bus.address == common_broker.stream
        async with runtime.connect(common_broker.tcp) as bus:
            assert bus.address == common_broker.tcp


def test_program_without_an_address_goes_where_its_environment_says(common_broker: BrokerProcess) -> None:
    with Program(program("where"), env=environment(SOCKBUS_ADDRESS=common_broker.stream)) as where:
        assert where.out.next() == common_broker.stream
        assert where.code() == 0


async def test_address_may_be_an_address(runtime: Runtime, common_broker: BrokerProcess) -> None:
    async with runtime.connect(Address.parse(common_broker.stream)) as bus:
        assert bus.transport == "stream"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("unix:{}/none", r"seqpacket: No such file or directory; stream: No such file or directory"),
        ("seqpacket:{}/none", r"seqpacket: No such file or directory"),
        ("stream:{}/none", r"stream: No such file or directory"),
        ("unix:{}/file", r"seqpacket: Not a directory"),
        ("unix:{}/stale", r"seqpacket: Connection refused; stream: Connection refused"),
        ("tcp:127.0.0.1:{port}", r"tcp: Connection refused"),
        ("tcp:no-such-host.invalid:1", r"tcp: (Name or service not known|Temporary failure .*|No address .*)"),
    ],
)
async def test_error_names_every_road_tried_and_the_command(
    runtime: Runtime, directory: Path, address: str, text: str
) -> None:
    (directory / "file").touch()
    (directory / "stale").mkdir()
    for kind in KINDS:
        with listening(directory / "stale" / kind, kind):
            pass
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = address.format(directory, port=unused.getsockname()[1])
        with pytest.raises(ConnectError) as caught:
            async with runtime.connect(address):
                pass
    wanted = rf"no broker at {re.escape(address)} \({text}\); start one with: sockbus broker {re.escape(address)}"
    assert re.fullmatch(wanted, str(caught.value))


@pytest.mark.parametrize("address", ["", "nonsense", "unix:", "tcp:localhost", "http://x", "unix:" + "x" * 200])
async def test_address_that_is_none_is_a_connect_error(runtime: Runtime, address: str) -> None:
    with pytest.raises(ConnectError):
        async with runtime.connect(address):
            pass


@pytest.mark.parametrize("name", ["", "x" * 256, "two\nlines", "\ud800"])
def test_name_that_is_none_is_refused(runtime: Runtime, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        runtime.connect(name=name)


class NoSeqpacket:
    """The socket module of a system that has no SEQPACKET (macOS)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def socket(self, family: int, kind: int, *rest: int) -> socket.socket:
        if kind == socket.SOCK_SEQPACKET:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        return socket.socket(family, kind, *rest)


def no_path(path: Path, _: pytest.MonkeyPatch) -> None:
    path.unlink()


def stale_socket(path: Path, _: pytest.MonkeyPatch) -> None:
    path.unlink()
    with listening(path, "seqpacket"):
        pass


def another_type(path: Path, _: pytest.MonkeyPatch) -> None:
    path.unlink()
    path.symlink_to(path.with_name("stream"))


def no_seqpacket(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance, "socket", NoSeqpacket())


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (no_path, errno.ENOENT),
        (stale_socket, errno.ECONNREFUSED),
        (another_type, errno.EPROTOTYPE),
        (no_seqpacket, errno.EPROTONOSUPPORT),
    ],
)
async def test_where_seqpacket_is_not_to_be_had_the_client_falls_back_to_stream(
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    code: int,
) -> None:
    with BrokerProcess() as broker, monkeypatch.context() as changes:
        spoil(broker.directory / "seqpacket", changes)
        async with runtime.connect(broker.unix) as bus:
            assert (bus.transport, bus.address) == ("stream", broker.stream)
            async with bus.subscribe("t") as messages:
                await bus.publish("t", "through", fds=[0])
                (await messages.receive()).close()
        # Who names one road gets that or none.
        with pytest.raises(ConnectError, match=rf"\(seqpacket: {os.strerror(code)}\)"):
            async with runtime.connect(broker.seqpacket):
                pass


@pytest.mark.parametrize("kind", ["seqpacket", "stream"])
async def test_full_backlog_is_waited_for(
    runtime: Runtime, common_broker: BrokerProcess, directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    front = directory / kind
    refused: list[int] = []
    after = dial.after_connect_error

    def look(code: int) -> object:
        refused.append(code)
        # The backlog empties; here the broker itself takes the place of the one that was full.
        front.unlink()
        front.symlink_to(common_broker.directory / kind)
        return after(code)

    with listening(front, kind, backlog=0), contextlib.ExitStack() as waiting:
        while True:
            sock = waiting.enter_context(socket.socket(socket.AF_UNIX, KINDS[kind]))
            sock.setblocking(False)
            if sock.connect_ex(str(front)) == errno.EAGAIN:
                break
        monkeypatch.setattr(dial, "after_connect_error", look)
        async with runtime.connect(f"unix:{directory}" if kind == "seqpacket" else f"{kind}:{front}") as bus:
            assert bus.transport == kind
    assert refused == [errno.EAGAIN]


async def test_version_that_the_broker_does_not_speak_is_a_connect_error(
    runtime: Runtime, common_broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BrokerProcess() as broker:
        monkeypatch.setattr("sockbus.protocol.handshake.VERSION", 99)
        for address in (broker.seqpacket, broker.stream, broker.tcp):
            with pytest.raises(ConnectError, match=r"protocol version 99 is not spoken here; .* version 1: install"):
                async with runtime.connect(address):
                    pass


async def test_refusal_of_the_broker_is_a_connect_error(runtime: Runtime, transport: str) -> None:
    with BrokerProcess("--limit", "connections=1") as broker:
        async with runtime.connect(broker.address(transport)):
            with pytest.raises(ConnectError, match=r"refused the connection: .* 1 connections"):
                async with runtime.connect(broker.address(transport)):
                    pass


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "has closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "broke the protocol"),
        (b"\xc9", "ended"),
    ],
)
async def test_server_that_is_no_broker_is_a_connect_error(runtime: Runtime, answer: bytes, text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1 << 16)
                sock.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        try:
            with pytest.raises(ConnectError, match=f"refused the connection: .*{text}"):
                async with runtime.connect(f"tcp:127.0.0.1:{listener.getsockname()[1]}"):
                    pass
        finally:
            server.join()


async def test_connections_that_were_refused_leave_nothing_open(runtime: Runtime, directory: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        with pytest.raises(ConnectError):
            async with runtime.connect(f"unix:{directory}"):
                pass
    assert os.listdir("/proc/self/fd") == before


def test_program_without_a_broker_is_told_how_to_start_one(directory: Path) -> None:
    env = environment(XDG_RUNTIME_DIR=str(directory))
    with Program(program("where"), env=env) as where:
        assert where.code() == 1
        assert f"start one with: sockbus broker unix:{directory}/sockbus" in where.err.rest().decode()


async def test_connection_to_itself_is_no_broker(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects to a port of the kernel's range where nobody listens may be given that very port (tcp(7))."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def bound(*kind: int) -> socket.socket:
        sock = inheritance.open_socket(*kind)
        sock.bind(("127.0.0.1", port))
        return sock

    monkeypatch.setattr(dial, "open_socket", bound)
    with pytest.raises(ConnectError, match=rf"no broker at tcp:127\.0\.0\.1:{port} \(tcp: Connection refused\)"):
        async with runtime.connect(f"tcp:127.0.0.1:{port}"):
            pass
