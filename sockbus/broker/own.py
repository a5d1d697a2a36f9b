"""Whether a descriptor that came is a socket of the bus itself.

A peer that sends its own end of a bus connection to the broker keeps that connection alive from inside it: no end of
file would ever come (CVE-2014-3637 was of this kind).
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Container

__all__ = ["is_own_socket"]


def is_own_socket(fd: int, own_names: Container[object]) -> bool:
    """Whether ``fd`` is a socket whose other end, or own name, is one of the listeners' names (getpeername(2))."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    sock = socket.socket(fileno=fd)
    try:
        names = [sock.getsockname()]
        try:
            names.append(sock.getpeername())
        except OSError:
            # Not connected: nothing to be at the other end.
            return names[0] in own_names
        return any(name and name in own_names for name in names)
    finally:
        sock.detach()
