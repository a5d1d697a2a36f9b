"""What sockbus relies on in the kernel where file descriptors are passed (unix(7)), seen to be so.

What fails here breaks ``sockbus/transport/fds.py``; the facts of sockets without descriptors are in
``test_kernel_facts``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sockbus.fd import duplicate
from tests.transport.pairs import Sockets, contents, failure, receive_raw, room_for, send_raw

Memfd = Callable[[bytes], int]

ROOT = Path(__file__).parents[2]
UNPRIVILEGED_ID = 65534  # "nobody" on most systems
NO_PRIVILEGE_TO_DROP = 77  # exit code of IN_FLIGHT

stream = pytest.mark.parametrize("sockets", ["stream"], indirect=True)


@stream
def test_9_fds_come_with_the_first_byte_of_their_own_send_and_end_a_receive(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    near.send(b"AAAA")
    send_raw(near, b"BBBB", [memfd(b"passed")])
    near.send(b"CCCC")
    data, fds, _ = receive_raw(far)
    assert (data, contents(fds)) == (b"AAAABBBB", [b"passed"])
    assert receive_raw(far) == (b"CCCC", [], 0)


@stream
def test_10_partial_send_has_delivered_its_fds_and_one_without_room_none(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    missing = send_raw(near, bytes(1 << 20), [memfd(b"passed")])
    assert 0 < missing < 1 << 20
    assert failure(lambda: send_raw(near, b"x", [memfd(b"not passed")])) == "EAGAIN"
    came = []
    while missing:
        data, fds, _ = receive_raw(far)
        missing -= len(data)
        came += contents(fds)
    assert came == [b"passed"]


def test_11_recv_drops_fds_without_a_word(sockets: Sockets) -> None:
    near, far = sockets
    reader, writer = os.pipe()
    send_raw(near, b"x", [writer])
    os.close(writer)
    assert far.recv(10) == b"x"
    assert os.read(reader, 1) == b"", "the last writer is gone"
    os.close(reader)


def test_11_peeking_duplicates_fds(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    send_raw(near, b"x", [memfd(b"passed")])
    peeked = receive_raw(far, flags=socket.MSG_PEEK)[1]
    assert contents(peeked) + contents(receive_raw(far)[1]) == [b"passed"] * 2


def test_11_room_for_one_fd_admits_two(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    send_raw(near, b"x", [memfd(b"one"), memfd(b"two"), memfd(b"three")])
    _, fds, flags = receive_raw(far, room=socket.CMSG_SPACE(4))
    assert (contents(fds), flags) == ([b"one", b"two"], socket.MSG_CTRUNC)


def test_11_recv_fds_makes_fds_inheritable(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    send_raw(near, b"x", [memfd(b"passed")])
    _, (fd,), _, _ = socket.recv_fds(far, 10, 1, socket.MSG_CMSG_CLOEXEC)
    assert os.get_inheritable(fd)
    os.close(fd)


def test_12_fds_pass_by_253_and_a_refused_send_delivers_nothing(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    fd = memfd(b"passed")
    (closed,) = duplicate([fd])
    os.close(closed)
    assert failure(lambda: send_raw(near, b"x", [fd] * 254)) == "EINVAL"
    assert failure(lambda: send_raw(near, b"x", [fd, closed])) == "EBADF"
    send_raw(near, b"y", [fd] * 253)
    data, fds, _ = receive_raw(far)
    assert (data, contents(fds)) == (b"y", [b"passed"] * 253)


def test_12_fds_without_bytes_pass_on_seqpacket_only(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    send_raw(near, b"", [memfd(b"passed")])
    if near.type == socket.SOCK_STREAM:
        assert failure(lambda: receive_raw(far)) == "EAGAIN"
    else:
        assert contents(receive_raw(far)[1]) == [b"passed"]


@pytest.mark.parametrize("room", [0, 1])
def test_13_receiver_without_room_gets_the_bytes_and_loses_the_fds(sockets: Sockets, memfd: Memfd, room: int) -> None:
    near, far = sockets
    send_raw(near, b"data", [memfd(b"one"), memfd(b"two")])
    with room_for(room):
        data, fds, flags = receive_raw(far)
    assert (data, flags, contents(fds)) == (b"data", socket.MSG_CTRUNC, [b"one", b"two"][:room])
    assert failure(lambda: receive_raw(far)) == "EAGAIN"


IN_FLIGHT = f"""
import os, resource, select, sys
from tests.transport.pairs import connected

if os.geteuid() == 0:
    try:
        os.setgroups([])
        os.setgid({UNPRIVILEGED_ID})
        os.setuid({UNPRIVILEGED_ID})
    except OSError:
        sys.exit({NO_PRIVILEGE_TO_DROP})
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
for name in "seqpacket", "stream":
    near, far = connected(name)
    while (sent := near.send([b"x"], [0] * 64)) == 1:
        pass
    writable = near.sock in select.select([], [near.sock], [], 0)[1]
    plain = near.send([b"x"])
    while (got := far.receive()) is not None:
        for fd in got[1]:
            os.close(fd)
    print(sent.name, writable, plain, near.send([b"x"], [0] * 64))
    far.receive()
"""


def test_14_fds_in_flight_beyond_the_users_limit_ask_to_wait_though_writable() -> None:
    program = [sys.executable, "-c", IN_FLIGHT]
    done = subprocess.run(program, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == NO_PRIVILEGE_TO_DROP:
        pytest.skip("root here cannot become an ordinary user")
    assert done.returncode == 0
    # Blocked.LATER on a writable socket; bytes alone pass; once the reader has read, fds pass again.
    assert done.stdout == "LATER True 1 1\n" * 2


def test_27_queued_number_means_what_is_open_under_it_when_it_leaves(sockets: Sockets, memfd: Memfd) -> None:
    near, far = sockets
    (number,) = duplicate([memfd(b"meant")])
    (kept,) = duplicate([number])
    os.dup2(memfd(b"another"), number)
    send_raw(near, b"x", [number, kept])
    os.close(number)
    os.close(kept)
    assert contents(receive_raw(far)[1]) == [b"another", b"meant"]
