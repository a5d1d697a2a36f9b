"""Messages of one peer on their way in: checked at their first frame, and finished when they are whole.

What a first frame shows is checked before anything is kept for it: size, headers, descriptors, window. A message in
pieces is charged to its sender meanwhile, and its descriptors are owned here until whoever finishes it takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from ..errors import MessageTooLarge, PermissionDenied, ProtocolError
from ..fd import SharedFds
from ..payload import decode_headers
from ..protocol.frame import MAX_FRAME, Flag
from ..protocol.inbox import Run
from ..protocol.pieces import Assembly
from .intake import Intake
from .own import is_own_socket

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Arrivals", "Finish", "Frames"]

_HEADERS = int(Flag.HEADERS)

Frames = Sequence[bytes]
#: what is done with a whole message: its first frame, all frames in few slices, cost and descriptors
Finish = Callable[[Run, Frames, int, SharedFds | None], None]


@final
class Arrivals:
    """The unfinished messages of one link, by number."""

    def __init__(self, hub: Hub) -> None:
        #: payload bytes that have not come
        self.missing_bytes = 0
        #: when the last piece came
        self.piece_at = 0.0
        self._hub = hub
        # A message that fits into a frame is not too large, unless the limit is below that.
        self._checks_small = hub.limits.message_bytes < MAX_FRAME
        self._started: dict[int, tuple[Assembly, SharedFds | None, Finish]] = {}

    def __len__(self) -> int:
        return len(self._started)

    def __contains__(self, number: int) -> bool:
        return number in self._started

    def of_kind(self, kind: int) -> int:
        """How many are of one kind."""
        return sum(assembly.first.kind == kind for assembly, _, _ in self._started.values())

    def check_run(self, run: Run) -> None:
        """MessageTooLarge when one of the plain messages of a run is."""
        if self._checks_small:
            for size in run.payload_sizes():
                self._check_size(size)

    def start(self, run: Run, intake: Intake, finish: Finish) -> None:
        """Check the first frame of a message, and go on when it is whole. Raises SockbusError on a violation."""
        total, headers, at = run.parts()
        self._check_size(total)
        if run.end - at == total and not (run.flags & _HEADERS or run.fds):
            cost = run.end - run.start
            intake.start(cost, 0)
            finish(run, (run.data,), cost, None)
            return
        if run.flags & _HEADERS:
            limits = self._hub.limits
            if len(headers) > limits.header_bytes:
                raise MessageTooLarge(f"headers of {len(headers)} bytes exceed header_bytes = {limits.header_bytes}")
            decode_headers(headers, limits.header_keys)
        for fd in run.fds:
            if is_own_socket(fd, self._hub.own_names):
                raise PermissionDenied("a socket of the bus itself came as a file descriptor; its end would go unseen")
        if run.correlation in self._started:
            raise ProtocolError(f"message {run.correlation} starts again before it is whole")
        assembly = Assembly(run, total, headers, at)
        intake.start(assembly.cost, run.declared_fds)
        shared = self._share(run)
        if assembly.missing:
            self._started[run.correlation] = assembly, shared, finish
            self.missing_bytes += assembly.missing
            self.piece_at = self._hub.now()
        else:
            _finish(assembly, shared, finish)

    def on_piece(self, run: Run) -> None:
        """The next part of one of them."""
        if run.correlation not in self._started:
            raise ProtocolError(f"a piece came for message {run.correlation}, which was not started")
        assembly, shared, finish = self._started[run.correlation]
        before = assembly.missing
        whole = assembly.add(run)
        self.missing_bytes -= before - assembly.missing
        self.piece_at = self._hub.now()
        if whole:
            del self._started[run.correlation]
            _finish(assembly, shared, finish)

    def close(self) -> None:
        """Forget what has not come whole, and let go of its descriptors."""
        for _, shared, _ in self._started.values():
            if shared is not None:
                shared.release()
        self._started.clear()
        self.missing_bytes = 0

    def _check_size(self, total: int) -> None:
        limit = self._hub.limits.message_bytes
        if total > limit:
            raise MessageTooLarge(f"a message of {total} bytes exceeds message_bytes = {limit}; pass a file instead")

    def _share(self, run: Run) -> SharedFds | None:
        if not run.fds:
            return None
        fds, run.fds = run.fds, ()
        self._hub.held_fds += len(fds)
        return SharedFds(fds, self._hub.fds_released)


def _finish(assembly: Assembly, shared: SharedFds | None, finish: Finish) -> None:
    try:
        finish(assembly.first, assembly.joined(), assembly.cost, shared)
    except BaseException:
        # Each checks before it hands anything on.
        if shared is not None:
            shared.release()
        raise
