"""Sockets and files for the transports' tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.transport.pairs import KINDS, Sockets


@pytest.fixture
def memfd() -> Iterator[Callable[[bytes], int]]:
    """Makes open files with given contents and owns them; whoever closes one makes the test fail."""
    made: list[int] = []

    def make(content: bytes) -> int:
        made.append(os.memfd_create("passed"))
        os.write(made[-1], content)
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


@pytest.fixture(params=["seqpacket", "stream"])
def sockets(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    """Two connected, non-blocking UNIX sockets with no transport around them."""
    try:
        near, far = socket.socketpair(socket.AF_UNIX, KINDS[request.param])
    except OSError as error:
        pytest.skip(f"{request.param}: {error}")
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far
