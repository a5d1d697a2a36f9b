"""Who may stand on the default address.

A directory in /tmp can be made by anybody. On the default address both sides therefore refuse one that is not their
own or is open to others, and a client refuses a broker of another user: fail closed, and say why.
"""

from __future__ import annotations

import os
import stat

from ..errors import PermissionDenied
from .base import Credentials

__all__ = ["check_broker", "check_private_directory"]


def check_private_directory(path: str) -> None:
    """PermissionDenied when ``path`` exists and is not a directory of this user's alone; OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionDenied(f"{path} is not a directory; remove it, or name another address")
    if found.st_uid != os.geteuid():
        raise PermissionDenied(
            f"{path} belongs to user {found.st_uid}, not to you (user {os.geteuid()}); name another address"
        )
    if found.st_mode & 0o077:
        raise PermissionDenied(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run chmod 700 {path}, or name another address"
        )


def check_broker(address: str, broker: Credentials | None) -> None:
    """PermissionDenied when the broker on the default address is neither this user's nor root's."""
    if broker is not None and broker.uid not in (0, os.geteuid()):
        raise PermissionDenied(
            f"the broker at {address} runs as user {broker.uid}, neither root nor you (user {os.geteuid()}); "
            f"name its address to use it all the same"
        )
