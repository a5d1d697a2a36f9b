"""What sockbus relies on in the kernel, seen to be so: records, roads to a socket, and processes behind it.

Where a probe shows that the thing itself is missing, its tests are skipped; what fails here breaks something
in ``sockbus/transport``. Default sizes are not pinned, only what follows from them. The other half, file
descriptors, is ``test_kernel_facts_of_fds``.
"""

from __future__ import annotations

import array
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockbus.protocol.fallback import NextStep, after_connect_error
from tests.transport.pairs import KINDS, PATIENCE, Sockets, await_events, failure, fill_raw, receive_raw

SO_PEERPIDFD = 77  # asm-generic/socket.h

seqpacket = pytest.mark.parametrize("sockets", ["seqpacket"], indirect=True)
stream = pytest.mark.parametrize("sockets", ["stream"], indirect=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, for paths short enough to be a socket's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def writable(sock: socket.socket) -> bool:
    return bool(select.select([], [sock], [], 0)[1])


# Records


@seqpacket
def test_1_largest_record_is_the_senders_buffer_less_32_bytes(sockets: Sockets) -> None:
    near, _ = sockets
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40_000
    assert failure(lambda: near.send(bytes(40_000 - 31))) == "EMSGSIZE"
    assert near.send(bytes(40_000 - 32)) == 40_000 - 32


def test_1_accepted_socket_does_not_inherit_the_buffer(here: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        default = listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        listener.bind("s")
        listener.listen()
        client.connect("s")
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == default


def test_3_tiny_writes_fill_the_queue_and_most_must_drain_before_it_is_writable(sockets: Sockets) -> None:
    near, far = sockets
    count = fill_raw(near, b"x")
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) / count > 256
    drained = 0
    while not writable(near):
        drained += len(far.recv(1))
    assert count / 2 < drained < count


@seqpacket
def test_4_empty_record_reads_like_the_end(sockets: Sockets) -> None:
    near, far = sockets
    near.send(b"")
    assert receive_raw(far) == (b"", [], 0)
    near.close()
    assert receive_raw(far) == (b"", [], 0)


@seqpacket
def test_5_tail_of_a_record_that_does_not_fit_is_gone_and_the_next_is_intact(sockets: Sockets) -> None:
    near, far = sockets
    near.send(b"too long")
    near.send(b"next")
    data, _, flags, _ = far.recvmsg(3)
    assert (data, flags) == (b"too", socket.MSG_TRUNC)
    assert receive_raw(far) == (b"next", [], 0)


def test_6_peer_gone_with_bytes_unread_shows_as_reset_before_the_data_on_seqpacket(sockets: Sockets) -> None:
    near, far = sockets
    near.send(b"never read")
    far.send(b"bye")
    far.close()
    seen: list[bytes | str] = []
    for _ in range(3):
        try:
            seen.append(near.recv(10))
        except ConnectionResetError:
            seen.append("ECONNRESET")
    is_stream = near.type == socket.SOCK_STREAM
    assert seen == ([b"bye", "ECONNRESET", b""] if is_stream else ["ECONNRESET", b"bye", b""])


# Roads that are closed


@pytest.mark.parametrize("client", ["seqpacket", "stream"])
@pytest.mark.parametrize(
    ("server", "name", "expected"),
    [
        ("other", "path", "EPROTOTYPE"),
        ("dgram", "path", "EPROTOTYPE"),
        ("other", "\0sockbus-test-{}", "ECONNREFUSED"),  # abstract
        ("stale", "path", "ECONNREFUSED"),
        ("none", "path", "ENOENT"),
    ],
)
def test_7_closed_road_leads_to_the_next(client: str, server: str, name: str, expected: str, here: Path) -> None:
    name = name.format(os.getpid())
    kind = {"dgram": "dgram", "other": "stream" if client == "seqpacket" else "seqpacket"}.get(server, client)
    with (
        socket.socket(socket.AF_UNIX, KINDS[kind]) as there,
        socket.socket(socket.AF_UNIX, KINDS[client]) as sock,
    ):
        if server != "none":
            there.bind(name)
        if server == "other":
            there.listen()
        if server == "stale":
            there.close()
            with socket.socket(socket.AF_UNIX, KINDS[client]) as second:
                assert failure(lambda: second.bind(name)) == "EADDRINUSE"
        assert failure(lambda: sock.connect(name)) == expected
    assert after_connect_error(getattr(errno, expected)) is NextStep.NEXT_ROAD


def test_7_socket_path_holds_107_bytes(here: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        with pytest.raises(OSError, match="too long"):
            sock.bind("p" * 108)
        sock.bind("p" * 107)
        assert sock.getsockname() == "p" * 107


@pytest.mark.parametrize("kind", ["seqpacket", "stream"])
def test_28_full_backlog_is_eagain_and_no_reason_to_leave_the_road(kind: str, here: Path) -> None:
    with socket.socket(socket.AF_UNIX, KINDS[kind]) as listener:
        listener.bind("s")
        listener.listen(0)
        clients: list[socket.socket] = []
        code = 0
        while not code and len(clients) < 10:
            clients.append(socket.socket(socket.AF_UNIX, KINDS[kind]))
            clients[-1].setblocking(False)
            code = clients[-1].connect_ex("s")
        for client in clients:
            client.close()
    assert errno.errorcode[code] == "EAGAIN"
    assert after_connect_error(code) is NextStep.RETRY


# Processes


@pytest.fixture
def client(here: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process that is connected to the socket beside it."""
    program = "import socket, sys; sock = socket.socket(socket.AF_UNIX); sock.connect('s'); sys.stdin.read()"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()
        listener.settimeout(PATIENCE)
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
            accepted, _ = listener.accept()
            with accepted:
                yield process, accepted


def test_19_peer_is_who_connected_and_stays_it_after_its_death(
    client: tuple[subprocess.Popen[bytes], socket.socket],
) -> None:
    process, accepted = client
    process.kill()
    process.wait()
    credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert list(array.array("i", credentials)) == [process.pid, os.geteuid(), os.getegid()]


def test_19_peers_pidfd_is_readable_once_it_is_dead(
    client: tuple[subprocess.Popen[bytes], socket.socket],
) -> None:
    process, accepted = client
    try:
        pidfd = accepted.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        pytest.skip(f"SO_PEERPIDFD: {error}")
    assert not select.select([pidfd], [], [], 0)[0]
    process.kill()
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)


SEND_FOR_EVER = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(bytes(1 << 24))"


@stream
def test_24_killed_sender_leaves_a_part_and_a_clean_end(sockets: Sockets) -> None:
    near, far = sockets
    near.setblocking(True)
    program = [sys.executable, "-c", SEND_FOR_EVER, str(near.fileno())]
    with subprocess.Popen(program, pass_fds=[near.fileno()]) as sender:
        near.close()
        await_events((far, select.POLLIN))
        sender.send_signal(signal.SIGKILL)
        assert sender.wait() == -signal.SIGKILL
    came = 0
    while data := far.recv(1 << 20):
        came += len(data)
    assert 0 < came < 1 << 24
