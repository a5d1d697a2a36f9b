"""Whether a descriptor that came is a socket of the bus itself.

A peer that sends its own end of a bus connection to the broker keeps that connection alive from inside it: no end of
file would ever come (CVE-2014-3637 was of this kind).
"""

from __future__ import annotations

import socket
from collections.abc import Container

__all__ = ["is_own_socket"]

_ANY_HOST = {"0.0.0.0", "::"}


def is_own_socket(fd: int, own_names: Container[object]) -> bool:
    """Whether ``fd`` is a socket whose other end, or own name, is one of the listeners' names (getpeername(2))."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        # No socket, or of a family without names (AF_ALG, AF_XDP), which no bus speaks. That fstat(2) was not asked is
        # on purpose: of a file on FUSE it asks the process behind it, which may be the sender's.
        return False
    try:
        near = sock.getsockname()
        try:
            far = sock.getpeername()
        except OSError:
            # Not connected: nothing to be at the other end.
            return near in own_names
        return any(name and name in own_names for name in (near, far)) or _reached_by_any_host(near, far, own_names)
    finally:
        sock.detach()


def _reached_by_any_host(near: object, far: object, own_names: Container[object]) -> bool:
    """Whether a TCP connection inside this machine leads to a listener on all of its addresses."""
    if not (isinstance(near, tuple) and isinstance(far, tuple) and near[0] == far[0]):
        return False
    return any((host, *name[1:]) in own_names for host in _ANY_HOST for name in (near, far))
