"""What every transport does: one suite, run over all of them, or over those with the property in question."""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from sockbus.errors import LimitExceeded, ProtocolError
from sockbus.fd import SharedFds, closing_settled, duplicate
from sockbus.protocol.frame import MAX_FRAME, Kind, encode
from sockbus.protocol.inbox import Inbox
from sockbus.protocol.outbox import Lane, Outbox
from sockbus.transport.base import Blocked, Credentials, Transport
from sockbus.transport.seqpacket import SeqpacketTransport
from tests.fd_guard import FdGuard
from tests.transport.pairs import (
    PATIENCE,
    Carriage,
    arriving,
    await_events,
    connected,
    contents,
    fill,
    room_for,
)

Pair = tuple[Transport, Transport]
Memfd = Callable[[bytes], int]

carrying_fds = pytest.mark.parametrize("pair", ["seqpacket", "stream"], indirect=True)
with_records = pytest.mark.parametrize("pair", ["seqpacket"], indirect=True)
with_bytes = pytest.mark.parametrize("pair", ["stream", "tcp"], indirect=True)
only_tcp = pytest.mark.parametrize("pair", ["tcp"], indirect=True)


@pytest.fixture(params=["seqpacket", "stream", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    near, far = connected(request.param)
    yield near, far
    near.close()
    far.close()
    assert closing_settled(PATIENCE)


def nothing_left_since(guard: FdGuard) -> bool:
    return closing_settled(PATIENCE) and not guard.leaked()


@pytest.mark.parametrize(
    ("pair", "facts"),
    [
        ("seqpacket", ("seqpacket", True, True)),
        ("stream", ("stream", True, False)),
        ("tcp", ("tcp", False, False)),
    ],
    indirect=["pair"],
)
def test_transport_says_what_it_is(pair: Pair, facts: tuple[str, bool, bool]) -> None:
    for transport in pair:
        assert (transport.name, transport.carries_fds, transport.records) == facts
        assert transport.sock.gettimeout() == 0.0


# Bytes


def test_bytes_arrive_in_order(pair: Pair) -> None:
    near, far = pair
    assert near.send([b"one ", bytearray(b"two "), memoryview(b"three ")]) == 14
    assert near.send([memoryview(b"- four -")[2:6]], ()) == 4
    came = b""
    while len(came) < 18:
        data, fds = arriving(far)
        came += data
        assert fds == ()
    assert came == b"one two three four"


@with_records
def test_each_send_is_received_as_one_record(pair: Pair) -> None:
    near, far = pair
    for record in (b"a", b"bc", bytes(MAX_FRAME)):
        assert near.send([record]) == len(record)
    assert [arriving(far)[0] for _ in range(3)] == [b"a", b"bc", bytes(MAX_FRAME)]


def test_nothing_there_is_none(pair: Pair) -> None:
    near, far = pair
    assert near.receive() is None
    assert far.receive() is None


def test_full_socket_asks_to_wait_until_writable(pair: Pair) -> None:
    near, far = pair
    taken = fill(near, bytes(MAX_FRAME))
    while taken:
        taken -= len(arriving(far)[0])
    await_events((near.sock, select.POLLOUT))
    assert near.send([b"again"]) == 5
    assert arriving(far) == (b"again", ())


@with_bytes
def test_partly_sent_bytes_go_on_where_they_were_cut(pair: Pair) -> None:
    near, far = pair
    whole = b"".join(struct.pack(">I", number) for number in range(1 << 21))
    sent = near.send([whole])
    assert isinstance(sent, int)
    assert 0 < sent < len(whole)
    came = bytearray()
    while len(came) < len(whole):
        await_events((far.sock, select.POLLIN), (near.sock, select.POLLOUT if sent < len(whole) else 0))
        if sent < len(whole) and isinstance(more := near.send([memoryview(whole)[sent:]]), int):
            sent += more
        if (got := far.receive()) is not None:
            came += got[0]
    assert came == whole


def test_full_record_goes_out_however_small_the_buffer_was() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert SeqpacketTransport(near).send([bytes(MAX_FRAME)]) == MAX_FRAME


@only_tcp
def test_tcp_does_not_hold_small_writes_back(pair: Pair) -> None:
    near, _ = pair
    assert near.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert near.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# The end


def test_end_is_empty_bytes_each_time(pair: Pair) -> None:
    near, far = pair
    assert far.send([b"last"]) == 4
    far.close()
    assert arriving(near) == (b"last", ())
    for _ in range(3):
        assert arriving(near) == (b"", ())
        assert not near.end_is_record()


@pytest.mark.parametrize("sends", [0, 2], ids=["before-any-send", "after-failed-sends"])
def test_peer_gone_with_bytes_unread_leaves_what_it_had_sent(pair: Pair, sends: int) -> None:
    near, far = pair
    assert near.send([b"never read"]) == 10
    await_events((far.sock, select.POLLIN))
    assert far.send([b"good"]) == 4
    assert far.send([b"bye"]) == 3
    far.close()
    await_events((near.sock, 0))
    for _ in range(sends):
        with pytest.raises(ConnectionError):
            near.send([b"too late"])
    came = b""
    try:
        while data := arriving(near)[0]:
            came += data
    except ConnectionResetError:
        assert near.name == "tcp"
    assert came == b"goodbye"
    assert arriving(near) == (b"", ())


def test_close_again_is_no_error(pair: Pair) -> None:
    for transport in pair:
        transport.close()
        transport.close()
        assert transport.sock.fileno() == -1


@carrying_fds
def test_close_does_not_wait_for_an_unread_socket_that_lingers(pair: Pair) -> None:
    near, far = pair
    lingering, reader = connected("tcp")
    fill(lingering, bytes(MAX_FRAME))
    lingering.sock.setblocking(True)
    lingering.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    assert near.send([b"x"], [lingering.sock.fileno()]) == 1
    lingering.close()
    far.close()
    assert not closing_settled(0), "the close was over, so it lingered here"
    reader.close()  # resets the connection, which ends the lingering
    assert closing_settled(PATIENCE)


@with_records
def test_empty_record_is_told_from_the_end(pair: Pair) -> None:
    near, far = pair
    near.sock.send(b"")
    assert arriving(far) == (b"", ())
    assert far.end_is_record()
    assert far.receive() is None
    near.close()
    assert arriving(far) == (b"", ())
    assert not far.end_is_record()


# File descriptors


@carrying_fds
@pytest.mark.parametrize("count", [1, 3, 253])
def test_passed_fds_are_usable_in_order_and_close_on_exec(pair: Pair, memfd: Memfd, count: int) -> None:
    near, far = pair
    expected = [b"file %d" % number for number in range(count)]
    assert near.send([b"data"], [memfd(content) for content in expected]) == 4
    data, fds = arriving(far)
    assert data == b"data"
    assert not any(os.get_inheritable(fd) for fd in fds)
    assert contents(fds) == expected


@carrying_fds
def test_repeated_fd_arrives_as_often_as_it_was_given(pair: Pair, memfd: Memfd) -> None:
    near, far = pair
    one, two = memfd(b"one"), memfd(b"two")
    near.send([b"x"], [one, two, one])
    _, fds = arriving(far)
    assert len(set(fds)) == 3
    assert os.path.sameopenfile(fds[0], fds[2])
    assert contents(fds) == [b"one", b"two", b"one"]


@pytest.mark.parametrize("pair", ["stream"], indirect=True)
def test_partial_send_has_passed_the_fds(pair: Pair, memfd: Memfd) -> None:
    near, far = pair
    whole = bytes(1 << 20)
    sent = near.send([whole], [memfd(b"once")])
    assert isinstance(sent, int)
    assert 0 < sent < len(whole)
    data, fds = arriving(far)
    assert contents(fds) == [b"once"]
    while sent > len(data):
        more, fds = arriving(far)
        data += more
        assert fds == ()


@carrying_fds
def test_blocked_send_has_not_passed_the_fds(pair: Pair, memfd: Memfd) -> None:
    near, far = pair
    taken = fill(near, bytes(1000))
    assert near.send([b"x"], [memfd(b"once")]) is Blocked.WRITABLE
    while taken:
        data, fds = arriving(far)
        taken -= len(data)
        assert fds == ()
    assert near.send([b"x"], [memfd(b"again")]) == 1
    assert contents(arriving(far)[1]) == [b"again"]


@only_tcp
def test_tcp_refuses_fds_and_stays_usable(pair: Pair) -> None:
    near, far = pair
    with pytest.raises(ValueError, match="TCP"):
        near.send([b"refused"], [0])
    assert near.send([b"sent"], ()) == 4
    assert arriving(far) == (b"sent", ())


@carrying_fds
@pytest.mark.parametrize("room", [0, 1, 2])
def test_fds_without_room_are_all_closed_and_reported(pair: Pair, memfd: Memfd, room: int) -> None:
    near, far = pair
    near.send([b"cut"], [memfd(b"one"), memfd(b"two"), memfd(b"three")])
    near.send([b"whole"], [memfd(b"four")])
    guard = FdGuard()
    with pytest.raises(LimitExceeded, match="limit of open files"), room_for(room):
        far.receive()
    assert nothing_left_since(guard)
    data, fds = arriving(far)
    assert (data, contents(fds)) == (b"whole", [b"four"])


@with_records
@pytest.mark.parametrize("size", [MAX_FRAME + 1, MAX_FRAME + 2, 2 * MAX_FRAME])
def test_record_beyond_64_kib_is_refused_with_its_fds_closed(pair: Pair, memfd: Memfd, size: int) -> None:
    near, far = pair
    near.send([bytes(size)], [memfd(b"one")])
    near.send([b"next"])
    guard = FdGuard()
    with pytest.raises(ProtocolError, match="65536"):
        far.receive()
    assert nothing_left_since(guard)
    assert arriving(far) == (b"next", ())


@with_records
def test_empty_record_with_fds_is_refused_with_them_closed(pair: Pair, memfd: Memfd) -> None:
    near, far = pair
    near.send([b""], [memfd(b"one")])
    guard = FdGuard()
    with pytest.raises(ProtocolError, match="empty record"):
        far.receive()
    assert nothing_left_since(guard)
    assert far.receive() is None


def test_unix_peers_are_known_and_tcp_peers_are_not(pair: Pair) -> None:
    near, _ = pair
    own = Credentials(os.getpid(), os.geteuid(), os.getegid())
    assert near.credentials() == (None if near.name == "tcp" else own)


# From an outbox to an inbox


def test_frames_cross_a_full_socket_each_with_its_own_fds(pair: Pair, memfd: Memfd) -> None:
    near, far = pair
    # Smaller than a frame, so that those with fds are cut too; records are never cut.
    near.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_FRAME if near.records else 1 << 13)
    outbox = Outbox(records=near.records)
    expected = []
    # Every size meets every number of fds; plain frames stand between those with fds, and in rows.
    sizes, counts = (0, 10, 5_000, 40_000, 65_000), (0, 1, 0, 0, 3, 16)
    for number, (size, count) in enumerate(itertools.product(sizes * 2, counts)):
        files = [b"file %d of frame %d" % (file, number) for file in range(count if near.carries_fds else 0)]
        frame = encode(Kind.PUBLISH, topic=b"t%d" % number, payload=bytes([number]) * size, sender=1, fds=len(files))
        fds = SharedFds(duplicate(memfd(content) for content in files)) if files else None
        outbox.put(Lane.MESSAGES, frame, fds)
        expected.append((frame, files))

    inbox = Inbox(carries_fds=near.carries_fds, record=near.records)
    carriage = Carriage(outbox, near, far)
    came = [(run.data, contents(run.fds)) for data, fds in carriage for run in inbox.receive(data, fds)]
    inbox.end()

    assert came == expected
    assert outbox.batch() is None
    assert carriage.full > 0
    assert (carriage.cut > 0) == (not near.records)
    assert (carriage.cut_with_fds > 0) == (near.name == "stream")
