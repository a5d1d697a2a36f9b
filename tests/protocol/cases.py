"""What may come in, and what may not: the table that ``test_inbox`` runs in chunks of every kind."""

from __future__ import annotations

from typing import Any, NamedTuple

from sockbus.protocol.frame import Kind

from .chunks import Sent

HEADERS, PIECED, FAILED, RECEIPT, RETAIN = 1, 2, 4, 8, 16
PLAIN = Sent(topic=b"a.b", payload=b"\x01")
WITH_FD = Sent(topic=b"a.b", payload=b"\x02", files=(0,))
OTHER_FDS = Sent(topic=b"a.b", payload=b"\x03", files=(1, 2))
OK = Sent(Kind.OK, payload=b"\xc0", sender=0, correlation=5)


class Case(NamedTuple):
    name: str
    stream: list[Sent]
    code: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed
    #: how many frames come before the error
    good: int = 0

    def __repr__(self) -> str:
        return self.name


VALID = [
    Case("nothing", []),
    Case("one publish", [PLAIN]),
    Case("one frame of the least size", [Sent(Kind.FLUSH)]),
    Case("one frame of the largest size", [Sent(topic=b"a", payload=bytes(65_509))]),
    Case("longest topic", [Sent(topic=b"a" * 255, payload=b"\xc0")]),
    Case("publish without a topic", [Sent(payload=b"\xc0")]),
    Case("every number at its largest", [Sent(sender=(1 << 64) - 1, correlation=(1 << 64) - 1, topic=b"a")]),
    Case("every kind", [Sent(kind, correlation=3, payload=b"\xc0") for kind in Kind]),
    Case("every kind with a topic", [Sent(kind, b"a.>", correlation=3) for kind in (16, 19, 32, 36)]),
    Case("run of equal frames", [PLAIN] * 5),
    Case("run of other lengths", [Sent(topic=b"a", payload=bytes(size)) for size in (1, 2, 300, 0, 7, 7, 7)]),
    Case("other topics of one length", [Sent(topic=topic, payload=b"\x01") for topic in (b"aa", b"ab", b"aa")]),
    Case("topic that goes on in the payload", [Sent(topic=b"aa"), Sent(topic=b"a", payload=b"a"), Sent(topic=b"aa")]),
    Case("other senders", [Sent(topic=b"a", sender=number) for number in (1, 1, 2, 1)]),
    Case("run with a receipt between", [PLAIN, Sent(topic=b"a.b", flags=RECEIPT, correlation=9), PLAIN, PLAIN]),
    Case("publishes with numbers", [Sent(topic=b"a", correlation=number) for number in (1, 3, 3)]),
    Case("all flags of a publish", [Sent(flags=HEADERS | PIECED | RECEIPT | RETAIN, correlation=1)]),
    Case("all flags of a request", [Sent(Kind.REQUEST, flags=HEADERS | PIECED, correlation=1)]),
    Case("all flags of a reply", [Sent(Kind.REPLY, flags=HEADERS | PIECED | FAILED, correlation=2)]),
    Case("frame inside a payload", [Sent(topic=b"a", payload=PLAIN.data), PLAIN]),
    Case("one fd", [WITH_FD]),
    Case("fds of every kind that carries them", [
        Sent(kind, correlation=2, files=(kind % 5, 5)) for kind in (Kind.PUBLISH, Kind.REQUEST, Kind.REPLY)
    ]),
    Case("as many fds as are allowed", [Sent(files=(0, 1, 2, 3))]),
    Case("one fd sent twice", [Sent(files=(6, 6))]),
    Case("plain frames before fds", [PLAIN, PLAIN, OK, WITH_FD]),
    Case("plain frames behind fds", [WITH_FD, PLAIN, OK, PLAIN]),
    Case("fds in a row", [WITH_FD, OTHER_FDS, WITH_FD, OTHER_FDS]),
    Case("fds between plain frames", [PLAIN, WITH_FD, PLAIN, PLAIN, OTHER_FDS, PLAIN]),
    Case("missing fds where they may miss", [Sent(declared=3), PLAIN, Sent(declared=1)],
         options={"carries_fds": False, "fds_may_miss": True}),
    Case("frame as large as is allowed", [Sent(payload=bytes(74))], options={"max_frame": 100}),
]  # fmt: skip

FAULTS = [
    Case("wrong first byte", [Sent(tag=0xC8)], "protocol"),
    Case("wrong first byte behind a run", [PLAIN, PLAIN, Sent(topic=b"a.b", tag=0xC8)], "protocol", good=2),
    Case("text", [Sent(tag=0x47, ext_type=0x45)], "protocol"),
    Case("wrong ext type", [Sent(ext_type=84)], "protocol"),
    Case("wrong ext type behind a run", [PLAIN, PLAIN, Sent(topic=b"a.b", ext_type=84)], "protocol", good=2),
    Case("negative ext type", [Sent(ext_type=255, kind=Kind.OK)], "protocol"),
    Case("length of nothing", [Sent(length=0)], "protocol"),
    Case("length below the prefix", [Sent(length=19)], "protocol"),
    Case("length below the prefix in a run", [PLAIN, Sent(topic=b"a.b", length=19)], "protocol", good=1),
    Case("length below the topic in a run", [PLAIN, Sent(topic=b"a.b", length=22)], "protocol", good=1),
    Case("length above the largest", [Sent(length=65_531)], "too-large"),
    Case("length above the largest in a run", [PLAIN, Sent(topic=b"a.b", length=65_531)], "too-large", good=1),
    Case("length of four gigabytes", [Sent(Kind.REPLY, length=0xFFFFFFFF)], "too-large"),
    Case("length above what is allowed", [Sent(payload=bytes(75))], "too-large", {"max_frame": 100}),
    Case("length above what is allowed in a run",
         [Sent(payload=b"1"), Sent(payload=bytes(75))], "too-large", {"max_frame": 100}, good=1),
    Case("topic beyond the frame", [Sent(topic=b"abc", topic_length=4)], "protocol"),
    Case("topic beyond the frame in a run", [Sent(topic=b"a"), Sent(topic_length=1)], "protocol", good=1),
    *(Case(f"kind {kind}", [PLAIN, Sent(kind), PLAIN], "protocol", good=1) for kind in (0, 6, 15, 22, 41, 55, 255)),
    *(Case(f"flags {flags:#x} on a publish", [Sent(flags=flags, correlation=1)], "protocol")
      for flags in (FAILED, 0x20, 0x40, 0x80, 0xFF)),
    Case("receipt of a request", [Sent(Kind.REQUEST, flags=RECEIPT, correlation=1)], "protocol"),
    Case("failed request", [Sent(Kind.REQUEST, flags=FAILED, correlation=1)], "protocol"),
    Case("receipt of a reply", [Sent(Kind.REPLY, flags=RECEIPT, correlation=1)], "protocol"),
    *(Case(f"flags on {kind.name}", [Sent(kind, flags=HEADERS, correlation=1)], "protocol")
      for kind in Kind if kind.name not in ("PUBLISH", "REQUEST", "REPLY")),
    Case("pieces without a number", [Sent(flags=PIECED)], "protocol"),
    Case("receipt without a number", [Sent(flags=RECEIPT)], "protocol"),
    Case("kept without a number", [Sent(flags=RETAIN)], "protocol"),
    Case("will without a number", [Sent(Kind.WILL, flags=RETAIN)], "protocol"),
    Case("will in pieces", [Sent(Kind.WILL, flags=PIECED, correlation=1)], "protocol"),
    Case("kept request", [Sent(Kind.REQUEST, flags=RETAIN, correlation=1)], "protocol"),
    *(Case(f"topic on {kind.name}", [Sent(kind, b"a", correlation=1)], "protocol")
      for kind in Kind if kind not in (16, 19, 21, 32, 36, 53)),
]  # fmt: skip

FAULTS_OF_FDS = [
    Case("fd on a plain frame", [Sent(files=(0,), declared=0)], "protocol"),
    Case("fd on a plain frame behind others", [PLAIN, OK, Sent(files=(0,), declared=0)], "protocol"),
    Case("fd on a plain frame before others", [Sent(files=(0,), declared=0), PLAIN, OK], "protocol"),
    Case("fewer fds than declared", [Sent(files=(0,), declared=2)], "protocol"),
    Case("more fds than declared", [Sent(files=(0, 1, 2), declared=2)], "protocol"),
    Case("no fds where one is declared", [PLAIN, Sent(declared=1), PLAIN], "protocol"),
    Case("no fds after some that came", [WITH_FD, Sent(declared=1), PLAIN], "protocol"),
    Case("one group for two frames", [OTHER_FDS, Sent(declared=2), PLAIN], "protocol"),
    Case("fds on a control frame", [Sent(Kind.CREDIT, correlation=1, files=(0,))], "protocol"),
    Case("fds on a piece", [Sent(Kind.PIECE, correlation=1, files=(0,))], "protocol"),
    Case("one fd more than allowed", [Sent(files=(0, 1, 2, 3, 4))], "too-many-fds"),
    Case("more fds than allowed and declared", [Sent(files=(0, 1, 2, 3, 4), declared=4)], "too-many-fds"),
    Case("one fd more than allowed is declared", [Sent(files=(0, 1, 2, 3), declared=5)], "too-many-fds"),
    Case("more fds than allowed on a plain frame", [Sent(files=(0, 1, 2, 3, 4), declared=0)], "too-many-fds"),
    Case("fds where none may come", [WITH_FD], "too-many-fds", {"carries_fds": False}),
    Case("fds declared where none may come", [Sent(declared=1)], "too-many-fds", {"carries_fds": False}),
    Case("undeclared fds where none may come", [Sent(files=(0,), declared=0)], "protocol", {"carries_fds": False}),
    Case("fds where they are to miss", [WITH_FD], "protocol", {"carries_fds": False, "fds_may_miss": True}),
    Case("fds on a frame with a fault", [Sent(files=(0,), ext_type=1)], "protocol"),
    Case("fds on a frame that is too large", [Sent(files=(0, 1, 2, 3, 4), length=70_000)], "too-many-fds"),
]  # fmt: skip
