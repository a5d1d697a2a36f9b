"""From a program's values to the frames of a message, checked before anything is sent, and sent when there is room.

What is wrong with a topic, payload, header or descriptor is said here, by an error that leaves the bus usable. Small
plain publishes have a short way (``plain``): one pack, one look-up, one concatenation.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Sequence
from typing import final

from ..errors import LimitExceeded, MessageTooLarge, PayloadError, PermissionDenied, TooManyFds
from ..fd import HasFileno, SharedFds, descriptor, duplicate
from ..message import Will
from ..payload import Headers, encode_headers, encode_payload
from ..topic import check_topic, is_reserved
from .frame import EXT32, LENGTH_OFFSET, MAX_FRAME, PREFIX_BYTES, Flag, Kind, head, stamped
from .orders import Orders
from .outbox import Lane, Outbox
from .pending import Pending
from .pieces import cut
from .window import Window

__all__ = ["Outgoing", "Sender", "check_will"]

# Topics whose frame head is kept; more than this in use at once are made anew.
_HEADS_KEPT = 4096
# Of what a handler raised; the rest of a longer text is cut off.
_FAILURE_CHARACTERS = 4096
_TAG_LENGTH = struct.Struct(">BI").pack
_TAG_BYTES = 5


def _publishable(topic: str) -> bytes:
    raw = check_topic(topic)
    if is_reserved(topic):
        raise PermissionDenied(f"topic {topic!r} begins with $ and belongs to the broker; use another name")
    return raw


def check_will(will: Will, message_bytes: int = MAX_FRAME) -> bytes:
    """The topic of a will; InvalidTopic, PermissionDenied, PayloadError, MessageTooLarge where it cannot be left."""
    if not isinstance(will, Will):
        raise TypeError(f"will={will!r:.80} is no sockbus.Will; give Will(topic, payload)")
    raw = _publishable(will.topic)
    size = len(encode_payload(will.payload))
    most = min(MAX_FRAME - PREFIX_BYTES - len(raw), message_bytes)
    if size > most:
        raise MessageTooLarge(
            f"the will on {will.topic!r} has a payload of {size} bytes, where one frame takes {most}; make it smaller"
        )
    return raw


@final
class Outgoing:
    """One composed message: its frames, its cost, the fds that it borrows, and whose it is.

    ``sender``: of the session that it is to leave by, ``Sender.adopt`` hands it to another's; ``pending``: who waits
    for what the broker answers to a publish.
    """

    __slots__ = ("_lenders", "_owned", "correlation", "cost", "fds", "frames", "kind", "pending", "sender")

    def __init__(
        self,
        kind: Kind,
        frames: list[bytes],
        fds: tuple[int, ...],
        sender: Sender,
        correlation: int,
        lenders: Sequence[int | HasFileno] = (),
        owned: SharedFds | None = None,
    ) -> None:
        self.kind = kind
        self.frames = frames
        self.fds = fds
        # Whose fds they are: a reply's owners are often held by nothing else, and would close them while it waits.
        self._lenders = lenders
        self._owned = owned
        self.sender = sender
        self.correlation = correlation
        self.pending: Pending | None = None
        self.cost = len(frames[0])
        if len(frames) > 1:
            self.cost += sum(map(len, frames[1:])) - PREFIX_BYTES * (len(frames) - 1)

    def keep_fds(self) -> None:
        """Own the fds from here on, so that the caller may close its own; LimitExceeded."""
        if self.fds and self._owned is None:
            self._owned = self.own_fds()

    def drop(self) -> None:
        """It will not be sent: let go of fds that it owns."""
        if self._owned is not None:
            self._owned.release()
            self._owned = None

    def own_fds(self) -> SharedFds | None:
        """Duplicates of the fds, so that the caller may close its own; LimitExceeded when this process has no room."""
        if not self.fds:
            return None
        if self._owned is not None:
            owned, self._owned = self._owned, None
            return owned
        try:
            return SharedFds(duplicate(self.fds), own=True)
        except OSError as error:
            raise LimitExceeded(
                f"{len(self.fds)} file descriptors cannot be duplicated for sending: {os.strerror(error.errno or 0)}; "
                f"close some, or raise the limit with ulimit -n"
            ) from error


@final
class Sender:
    """The messages of one peer, and the windows that they spend.

    ``sender``: its number; ``own_socket``: device and inode of the bus's own socket, which is not to be sent.
    """

    def __init__(
        self,
        sender: int,
        orders: Orders,
        outbox: Outbox,
        limits: dict[str, int],
        own_socket: tuple[int, int],
        *,
        carries_fds: bool,
    ) -> None:
        self.publishes = Window(0, 0)
        self.requests = Window(0, 0)
        self.replies = Window(0, 0)
        self._roads = {
            Kind.PUBLISH: (self.publishes, Lane.MESSAGES),
            Kind.REQUEST: (self.requests, Lane.CALLS),
            Kind.REPLY: (self.replies, Lane.CALLS),
        }
        self.number = sender
        self._orders = orders
        self._outbox = outbox
        self._limits = limits
        self._carries_fds = carries_fds
        self._own_socket = own_socket
        self._heads: dict[str, bytes] = {}
        self._plain_bytes = min(MAX_FRAME, limits["message_bytes"])

    @property
    def is_over(self) -> bool:
        """Whether its session has ended."""
        return self._outbox.is_closed

    def grant(self, window: tuple[int, ...]) -> None:
        """The broker's new totals, as a WINDOW frame has them; ProtocolError when one falls."""
        self.publishes.grant(window[0], window[1])
        self.requests.grant(window[2], window[3])
        self.replies.grant(window[4], window[5])
        self.publishes.taken_messages = max(self.publishes.taken_messages, window[6])

    def plain(self, topic: str, payload: object) -> bytes | Outgoing:
        """A publish without headers, fds or receipt: its frame where one is enough. Raises as ``publish``."""
        data = encode_payload(payload)
        after_tag = self._heads.get(topic)
        if after_tag is None:
            after_tag = self._new_head(topic)
        size = len(after_tag) + len(data) + _TAG_BYTES
        if size > self._plain_bytes:
            return self._publish(topic, data, (), None, 0)
        return _TAG_LENGTH(EXT32, size - LENGTH_OFFSET) + after_tag + data

    def _new_head(self, topic: str) -> bytes:
        raw = _publishable(topic)
        if len(self._heads) >= _HEADS_KEPT:
            self._heads.clear()
        after_tag = self._heads[topic] = head(Kind.PUBLISH, raw, self.number)[_TAG_BYTES:]
        return after_tag

    def publish(
        self, topic: str, payload: object, fds: Sequence[int | HasFileno], headers: Headers | None, *, flags: int
    ) -> Outgoing:
        """A message to publish. InvalidTopic, PayloadError, MessageTooLarge, TooManyFds, PermissionDenied."""
        return self._publish(topic, encode_payload(payload), fds, headers, flags)

    def _publish(
        self, topic: str, data: bytes, fds: Sequence[int | HasFileno], headers: Headers | None, flags: int
    ) -> Outgoing:
        return self._message(
            Kind.PUBLISH,
            _publishable(topic),
            data,
            correlation=self._orders.number(),
            headers=headers,
            fds=fds,
            flags=flags,
        )

    def request(self, topic: str, payload: object, fds: Sequence[int | HasFileno], headers: Headers | None) -> Outgoing:
        """A request; raises as ``publish``."""
        return self._message(
            Kind.REQUEST,
            check_topic(topic),
            encode_payload(payload),
            correlation=self._orders.number(),
            headers=headers,
            fds=fds,
        )

    def reply(
        self,
        call: int,
        payload: object,
        fds: Sequence[int | HasFileno] = (),
        headers: Headers | None = None,
        *,
        failed: bool = False,
    ) -> Outgoing:
        """The reply to a call; ``failed``: the payload is [type, text]. Raises as ``publish``."""
        return self._message(
            Kind.REPLY,
            b"",
            encode_payload(payload),
            correlation=call,
            headers=headers,
            fds=fds,
            flags=Flag.FAILED if failed else 0,
        )

    def failure(self, call: int, error: BaseException) -> Outgoing:
        """The reply that says what a handler raised."""
        text = str(error)[:_FAILURE_CHARACTERS]
        return self.reply(call, [type(error).__name__, text.encode(errors="replace").decode()], failed=True)

    def will(self, will: Will) -> Pending:
        """Leave a will; who waits until the broker has it. Raises as ``check_will``."""
        topic = check_will(will, self._limits["message_bytes"])
        flags = Flag.RETAIN if will.retain else 0
        return self._orders.ask(Kind.WILL, self._orders.number(), will.payload, topic=topic, flags=flags)

    def send(self, outgoing: Outgoing) -> bool:
        """Queue a message, unless its window is spent; LimitExceeded when its fds cannot be duplicated."""
        window, lane = self._roads[outgoing.kind]
        if window.sent_bytes >= window.granted_bytes:
            return False
        fds = None
        if outgoing.fds:
            if window.sent_fds >= window.granted_fds:
                return False
            fds = outgoing.own_fds()
            window.sent_fds += len(outgoing.fds)
        window.sent_bytes += outgoing.cost
        if outgoing.pending is not None:
            self._orders.expect(outgoing.correlation, outgoing.pending)
        else:
            window.sent_messages += 1
        if outgoing.kind is Kind.REQUEST and not self._outbox.queued_bytes and len(outgoing.frames) == 1:
            self._outbox.put_alone(lane, outgoing.frames[0], fds)
            return True
        for frame in outgoing.frames:
            self._outbox.put(lane, frame, fds)
            fds = None
        return True

    def adopt(self, outgoing: Outgoing) -> None:
        """What was composed for a session that has ended leaves by this one."""
        outgoing.sender = self
        outgoing.frames = [stamped(frame, self.number) for frame in outgoing.frames]

    def _message(
        self,
        kind: Kind,
        topic: bytes,
        data: bytes,
        *,
        correlation: int,
        headers: Headers | None,
        fds: Sequence[int | HasFileno],
        flags: int = 0,
    ) -> Outgoing:
        limit = self._limits["message_bytes"]
        if len(data) > limit:
            raise MessageTooLarge(
                f"a payload of {len(data)} bytes on {topic.decode()!r} exceeds message_bytes = {limit}; pass a file or "
                f"memfd instead, or raise it with --limit message_bytes=N at the broker"
            )
        front = b""
        if headers:
            front = encode_headers(headers, self._limits["header_bytes"], self._limits["header_keys"])
        numbers = self._descriptors(fds) if fds else ()
        frames = cut(
            kind,
            topic,
            data,
            sender=self.number,
            correlation=correlation,
            headers=front,
            fds=len(numbers),
            flags=flags,
        )
        return Outgoing(kind, frames, numbers, self, correlation, lenders=fds)

    def _descriptors(self, fds: Sequence[int | HasFileno]) -> tuple[int, ...]:
        if not isinstance(fds, Collection):
            raise PayloadError(f"fds={fds!r:.80} is not a list of what has a descriptor; put it into one")
        if not self._carries_fds:
            raise TooManyFds(f"this link carries no file descriptors (given: {len(fds)}); pass them over a UNIX socket")
        limit = self._limits["message_fds"]
        if len(fds) > limit:
            raise TooManyFds(
                f"{len(fds)} file descriptors exceed message_fds = {limit}; send several messages, or raise it with "
                f"--limit message_fds=N at the broker"
            )
        numbers: list[int] = []
        for source in fds:
            try:
                number = descriptor(source)
                found = os.fstat(number)
            except (OSError, TypeError, ValueError, AttributeError, OverflowError) as error:
                reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
                raise PayloadError(
                    f"{source!r:.80} cannot be sent as a file descriptor: {reason}; pass an open fd or an object with "
                    f"fileno()"
                ) from error
            if (found.st_dev, found.st_ino) == self._own_socket:
                raise PermissionDenied("the bus's own socket cannot be sent over the bus: its end would go unseen")
            numbers.append(number)
        return tuple(numbers)
