"""Passing file descriptors with SCM_RIGHTS (unix(7), cmsg(3)).

The only two ways in which this program touches a UNIX socket that may carry descriptors: ``recvmsg`` always
has room for as many as the kernel passes at once (253) and always sets MSG_CMSG_CLOEXEC, for ``recv`` drops
pending descriptors without a word, MSG_PEEK duplicates them, and ``socket.recv_fds`` makes them inheritable.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

from ..errors import LimitExceeded, ProtocolError
from ..fd import close_fds
from .base import Blocked, Buffer, blocked_by

__all__ = ["close_with_fds", "receive_with_fds", "send_with_fds"]

_INT = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(253 * _INT)
# Plain integers: the arithmetic of enum.IntFlag costs more than the call.
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_SEND_FLAGS = int(socket.MSG_NOSIGNAL)
_TRUNC = int(socket.MSG_TRUNC)
_CTRUNC = int(socket.MSG_CTRUNC)
_DRAINED = 1 << 16


def receive_with_fds(sock: socket.socket, size: int) -> tuple[bytes, tuple[int, ...]] | None:
    """One ``recvmsg`` of at most ``size`` bytes; None when nothing is there.

    Raises ProtocolError (MSG_TRUNC: a record larger than ``size``; or an empty record with descriptors) and
    LimitExceeded (MSG_CTRUNC: this process had no room for the descriptors, which are lost for good); all
    descriptors are closed then.
    """
    try:
        try:
            data, control, flags, _ = sock.recvmsg(size, _ROOM, _CLOEXEC)
        except ConnectionResetError:
            # The peer left with bytes of ours unread. The kernel says so once, on SEQPACKET before it hands
            # over what the peer had sent, its goodbye for one; that and the end are still to come.
            data, control, flags, _ = sock.recvmsg(size, _ROOM, _CLOEXEC)
    except BlockingIOError:
        return None
    if not control and not flags & (_TRUNC | _CTRUNC):
        return data, ()
    fds = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % _INT])
    if flags & _CTRUNC:
        close_fds(fds)
        raise LimitExceeded(
            "file descriptors were lost on arrival (MSG_CTRUNC): this process is at its limit of open files; "
            "raise it with ulimit -n"
        )
    if flags & _TRUNC:
        close_fds(fds)
        raise ProtocolError(f"a record is larger than {size} bytes (MSG_TRUNC); put less into one record")
    if fds and not data:
        # It reads like the end of the stream, where nobody looks for descriptors.
        close_fds(fds)
        raise ProtocolError(f"{len(fds)} file descriptors came with an empty record; send a whole frame")
    return data, tuple(fds)


def send_with_fds(sock: socket.socket, buffers: Sequence[Buffer], fds: Sequence[int]) -> int | Blocked:
    """One ``sendmsg``; see ``Transport.send``. At least one byte must go with the descriptors."""
    try:
        if fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
            return sock.sendmsg(buffers, (rights,), _SEND_FLAGS)
        if len(buffers) == 1:
            return sock.send(buffers[0], _SEND_FLAGS)
        return sock.sendmsg(buffers, (), _SEND_FLAGS)
    except OSError as error:
        return blocked_by(error)


def close_with_fds(sock: socket.socket) -> None:
    """Close a socket in whose queue descriptors may lie.

    Closing them with it could linger (socket(7)), so they are taken out first; after the shutdown no more can come.
    """
    if sock.fileno() < 0:
        return
    try:
        sock.shutdown(socket.SHUT_RDWR)
        while True:
            data, control, _, _ = sock.recvmsg(_DRAINED, _ROOM, _CLOEXEC)
            for level, kind, content in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    close_fds(array.array("i", content[: len(content) - len(content) % _INT]))
            if not data and not control:
                break
    except OSError:
        # Not connected, or nothing left: as good as drained.
        pass
    sock.close()
