"""Frames as they are sent, chunks as a kernel may hand them over, and what an inbox makes of them.

``Sent`` is an encoder of its own, so that a mistake in ``sockbus.protocol.frame`` does not hide itself, and can write
what no honest side writes. Descriptors go with the chunk that holds the first byte of their frame, and no chunk has
more than one group of them, as the kernel has it (unix(7)).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sockbus.errors import SockbusError
from sockbus.fd import closing_settled
from sockbus.protocol.frame import Kind
from sockbus.protocol.inbox import Inbox, Run

PREFIX = struct.Struct(">BIBBBBBQQ")


@dataclass(frozen=True, slots=True)
class Sent:
    """One frame and the descriptors that are really sent with it, as indices into a list of open files."""

    kind: int = Kind.PUBLISH
    topic: bytes = b""
    payload: bytes = b""
    sender: int = 7
    correlation: int = 0
    flags: int = 0
    files: tuple[int, ...] = ()
    # What the prefix says where it lies.
    declared: int | None = None
    tag: int = 0xC9
    ext_type: int = 83
    length: int | None = None
    topic_length: int | None = None

    @property
    def nfds(self) -> int:
        return len(self.files) if self.declared is None else self.declared

    @property
    def data(self) -> bytes:
        length = 20 + len(self.topic) + len(self.payload) if self.length is None else self.length
        topic_length = len(self.topic) if self.topic_length is None else self.topic_length
        prefix = PREFIX.pack(
            self.tag,
            length,
            self.ext_type,
            self.kind,
            self.nfds,
            self.flags,
            topic_length,
            self.sender,
            self.correlation,
        )
        return prefix + self.topic + self.payload


class Seen(NamedTuple):
    """One frame as it came out; ``files`` by inode, for their numbers are new ones."""

    kind: int
    topic: bytes
    sender: int
    correlation: int
    flags: int
    declared: int
    files: tuple[int, ...]
    body: bytes


class Outcome(NamedTuple):
    """The frames, and the code of the error that ended them."""

    frames: list[Seen]
    code: str | None


def expected(stream: Iterable[Sent], files: Sequence[int]) -> list[Seen]:
    """What a stream without a fault comes out as."""
    return [
        Seen(
            sent.kind,
            sent.topic,
            sent.sender,
            sent.correlation,
            sent.flags,
            sent.nfds,
            tuple(os.fstat(files[index]).st_ino for index in sent.files),
            sent.payload,
        )
        for sent in stream
    ]


def size_of(stream: Iterable[Sent]) -> int:
    return sum(len(sent.data) for sent in stream)


def chunks(stream: Sequence[Sent], cuts: Iterable[int]) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """The stream's bytes, cut there and wherever a second group would come, each with its group."""
    marks: dict[int, tuple[int, ...]] = {}
    at = 0
    for sent in stream:
        if sent.files:
            marks[at] = sent.files
        at += len(sent.data)
    data = b"".join(sent.data for sent in stream)
    wanted = set(cuts)
    start, group = 0, ()
    for at in sorted({*wanted, *marks, len(data)}):
        if start < at <= len(data) and (at in wanted or at == len(data) or (group and at in marks)):
            yield data[start:at], group
            start, group = at, ()
        group = marks.get(at, group)


def frames_of(run: Run, files: tuple[int, ...] = ()) -> Iterator[Seen]:
    """The frames of a run, one by one."""
    at = run.start
    for _ in range(run.count):
        _, length, _, kind, declared, flags, topic_length, sender, correlation = PREFIX.unpack_from(run.buffer, at)
        assert (kind, declared, flags, sender, correlation) == (
            run.kind, run.declared_fds, run.flags, run.sender, run.correlation,
        )  # fmt: skip
        frame = run.buffer[at : at + length + 6]
        assert frame[26 : 26 + topic_length] == run.topic
        yield Seen(kind, run.topic, sender, correlation, flags, declared, files, frame[26 + topic_length :])
        at += length + 6
    assert at == run.end


def receive(
    inbox: Inbox, data: bytes, fds: Sequence[int], frames: list[Seen], *, touch: Any = lambda run: None
) -> None:
    """Feed one chunk and append the frames that come out; the fds are closed at once."""
    for run in inbox.receive(data, fds):
        files = tuple(os.fstat(fd).st_ino for fd in run.fds)
        for fd in run.fds:
            os.close(fd)
        frames.extend(frames_of(run, files))
        touch(run)


def drive(
    stream: Sequence[Sent],
    cuts: Iterable[int] = (),
    *,
    files: Sequence[int] = (),
    touch: Any = lambda run: None,
    **options: Any,
) -> Outcome:
    """Feed a stream and its end to a new inbox; every descriptor that is not taken is closed by it."""
    inbox = Inbox(**{"carries_fds": True, "max_fds": 4, **options})
    frames: list[Seen] = []
    code = None
    try:
        for data, group in chunks(stream, cuts):
            receive(inbox, data, [os.dup(files[index]) for index in group], frames, touch=touch)
        inbox.end()
    except SockbusError as error:
        code = error.code
    finally:
        inbox.close()
    assert closing_settled(30)
    return Outcome(frames, code)
