"""A peer whose forked child holds its socket: ``python -m tests.broker.orphan ADDRESS TOPIC COUNT``.

It leaves a will, serves, prints its peer number, publishes on a line of its input and kills itself. The child ends with
the input.
"""

from __future__ import annotations

import os
import signal
import sys

from sockbus.protocol.frame import Kind
from tests.broker.raw import Raw


def main(address: str, topic: str, count: str) -> None:
    peer = Raw(address)
    peer.send(peer.frame(Kind.WILL, f"{topic}.will", b"\xc0", 901))
    peer.expect(Kind.OK)
    peer.serve(f"{topic}.ask", 903)
    reads, writes = os.pipe()
    if not os.fork():
        os.read(reads, 1)  # the line is the parent's
        sys.stdin.read()
        os._exit(0)
    print(peer.number, flush=True)
    os.read(0, 1)
    os.write(writes, b"x")
    fd = os.memfd_create("last")
    for number in range(int(count)):
        peer.send(peer.frame(Kind.PUBLISH, f"{topic}.said", number.to_bytes(4, "big")))
    if peer.carries_fds:
        peer.send(peer.frame(Kind.PUBLISH, f"{topic}.said", b"\x01", fds=1), [fd])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
