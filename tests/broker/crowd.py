"""Peers that misbehave, each in its own way, for a bounded amount of work or until they are told to go."""

from __future__ import annotations

import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from sockbus.protocol.frame import Flag, Kind
from tests.broker.raw import PATIENCE, Raw, open_files, pieced
from tests.brokers import Program

MIB = 1 << 20
# Seconds after which a peer that floods takes a socket for full: it is not to wait for a reader that is its own.
FULL = 0.3

Crowd = Callable[["Stand"], None]


class Stand:
    """Where one of the crowd stands: its connection, its luck, and who tells it to go."""

    def __init__(self, address: str, number: int, over: threading.Event) -> None:
        self.address = address
        self.chance = random.Random(number)
        self.over = over
        self.open: list[Raw] = []

    def peer(self, **options: Any) -> Raw:
        self.open.append(Raw(self.address, **options))
        return self.open[-1]

    def flood(self, peer: Raw, data: bytes, most: int, fds: list[int] | None = None) -> None:
        """Send again and again until so many bytes are sent, the socket is full, or the peer was sent away."""
        peer.sock.settimeout(FULL)
        try:
            for _ in range(0, most, len(data)):
                if self.over.is_set() or not peer.send(data, fds or ()):
                    return
        except TimeoutError:
            return


def sends_garbage(stand: Stand) -> None:
    for greet in (False, True, True):
        peer = stand.peer(greet=greet)
        stand.flood(peer, stand.chance.randbytes(5000), 100_000)


def keeps_half_a_frame(stand: Stand) -> None:
    peer = stand.peer()
    if peer.transport != "seqpacket":
        peer.send(peer.frame(Kind.PUBLISH, "crowd.half", bytes(60_000))[:-1])
    stand.over.wait(PATIENCE)


def says_nothing(stand: Stand) -> None:
    for _ in range(10):
        stand.peer(greet=False)
    stand.over.wait(PATIENCE)


def subscribes_and_never_reads(stand: Stand) -> None:
    peer = stand.peer()
    for number in range(1, 40, 2):
        peer.send(peer.subscription("crowd.>", number, credit=(1 << 40, 1 << 40, 1 << 40), fds="strip"))
    stand.over.wait(PATIENCE)


def publishes_to_those_who_never_read(stand: Stand) -> None:
    peer = stand.peer()
    for number in range(40):
        stand.flood(peer, peer.frame(Kind.PUBLISH, f"crowd.a{number % 3}", bytes(20_000)), 60_000)


def floods_descriptors(stand: Stand) -> None:
    for files in (16, 3, 253):
        peer = stand.peer()
        with open_files(files if peer.carries_fds else 0) as fds:
            stand.flood(peer, peer.frame(Kind.PUBLISH, "crowd.fds", fds=min(files, 16)), 4000, fds)


def asks_and_reads_no_answer(stand: Stand) -> None:
    for topic in ("nobody.there", "$SYS.status"):
        peer = stand.peer()
        frames = [peer.frame(Kind.REQUEST, topic, correlation=number) for number in range(1, 1000, 2)]
        for at in range(0, 500, 50):
            stand.flood(peer, b"".join(frames[at : at + 50]), 3000)


def comes_and_goes(stand: Stand) -> None:
    for number in range(20):
        with Raw(stand.address) as peer:
            for odd in range(1, 21, 2):
                peer.send(peer.subscription(f"*.{number}.>" if odd % 3 else "healthy.*.no", odd, group="g"))
                peer.send(peer.control(Kind.SERVE, {"concurrency": 1}, odd + 100, f"crowd.served.{odd}.*"))
            peer.send(peer.frame(Kind.REQUEST, "crowd.served.1.x", correlation=1001))
            peer.send(peer.frame(Kind.PUBLISH, "crowd.a1", bytes(100)))


def sends_pieces_for_ever(stand: Stand) -> None:
    peer = stand.peer()
    peer.send(peer.frame(Kind.PUBLISH, "crowd.pieces", pieced(64 * MIB, b"x"), 1, flags=Flag.PIECED))
    stand.flood(peer, peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1), 4 * MIB)
    stand.over.wait(PATIENCE)


KILLED = """
import sys, os
from tests.broker.raw import Raw, pieced
from sockbus.protocol.frame import Flag, Kind
peer = Raw(sys.argv[1])
peer.send(peer.frame(Kind.PUBLISH, "crowd.killed", pieced(1 << 20, b"x"), 1, flags=Flag.PIECED))
peer.send(peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1))
if peer.transport != "seqpacket":
    peer.send(peer.frame(Kind.PIECE, payload=bytes(60_000), correlation=1)[:30_000])
print("sent", flush=True)
sys.stdin.read()
"""


def is_killed_in_mid_message(stand: Stand) -> None:
    near, far = socket.socketpair()
    with near, far, Program([sys.executable, "-c", KILLED, stand.address], stdin=far.makefile("rb")) as program:
        assert program.out.next() == "sent", program.err.rest()
        program.signal(signal.SIGKILL)
        assert program.code() == -signal.SIGKILL


KINDS: list[Crowd] = [
    sends_garbage,
    keeps_half_a_frame,
    says_nothing,
    subscribes_and_never_reads,
    publishes_to_those_who_never_read,
    floods_descriptors,
    asks_and_reads_no_answer,
    comes_and_goes,
    sends_pieces_for_ever,
]
