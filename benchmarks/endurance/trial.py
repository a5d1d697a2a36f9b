"""One trial: so many processes at one broker, what is done to them, and the verdict on what they have written down.

A ``Post`` is a broker that can be killed and restarted at the same address. A trial begins when all its programs are
there, and ends when all have finished and what they have written has been read: publishers first, so that everything
they published is with the broker when the subscribers drain.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self, final

from sockbus.blocking import connect

from ..process import Crew, Program
from .checker import Fault, check
from .history import History, history_of
from .publisher import publish
from .record import Event, Record, read
from .server import serve
from .subscriber import subscribe

__all__ = ["Member", "Post", "Trial"]

_RUNTIMES = ("trio", "asyncio", "blocking")
_POLICIES = ("block", "drop_oldest", "latest", "drop_newest", "disconnect")
# Seconds until descriptors of links that have ended are closed.
_SETTLING = 10.0


@final
class Post:
    """A broker, and where it is."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self._stack = ExitStack()
        self._crew = Crew()
        self._broker: Program | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(self._crew)
        place = self._crew.place()
        self._addresses = [f"unix:{place}/bus", "tcp:127.0.0.1:0"]
        self.start()
        _, tcp = self._addresses
        self.address = tcp if self.transport == "tcp" else f"{self.transport}:{place}/bus/{self.transport}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start it, again at the same addresses."""
        self._broker, self._addresses = self._crew.broker_at(*self._addresses)

    def end(self, number: signal.Signals) -> None:
        """End it, and wait until it is gone."""
        assert self._broker is not None
        self._broker.signal(number)
        self._broker.ended()
        self._crew.dismiss(self._broker)

    def forget(self) -> None:
        """Let it forget the kept values of who is not there any more."""
        with connect(self.address) as bus:
            for kept in bus.request("$SYS.retained").payload:
                bus.publish(kept["topic"], None, retain=True)

    def descriptors(self) -> int:
        """How many it has open."""
        assert self._broker is not None
        return len(os.listdir(f"/proc/{self._broker.pid}/fd"))

    def resident(self) -> int:
        """Bytes of memory that it occupies."""
        assert self._broker is not None
        pages = int(Path(f"/proc/{self._broker.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Member(NamedTuple):
    """One program of a trial, and what starts another in its place."""

    program: Program
    start: Callable[[], Member]


@final
class Trial:
    """A context manager; ``rest``: seconds that publishers and subscribers rest now and then."""

    def __init__(self, post: Post, seed: int, *, rest: float = 0.05) -> None:
        self.post = post
        self._rest = rest
        self._chance = random.Random(seed)
        self._crew = Crew()
        self._names = itertools.count()
        self._brokers: list[Event] = []
        self.publishers: list[Member] = []
        self.subscribers: list[Member] = []
        self.servers: list[Member] = []

    def __enter__(self) -> Self:
        self._crew.__enter__()
        self._place = Path(self._crew.place())
        self._record = Record(self._place / "brokers")
        return self

    def __exit__(self, *_: object) -> None:
        self._record.close()
        self._crew.__exit__()

    def begin(self, publishers: int = 8, subscribers: int = 8, servers: int = 1) -> None:
        """Start so many programs, of all runtimes and policies, and wait until all are there."""
        # Their names are those of the trial before.
        self.post.forget()
        self.subscribers = [self._subscriber(index) for index in range(subscribers)]
        self.servers = [self._server(index) for index in range(servers)]
        self.publishers = [self._publisher(index) for index in range(publishers)]
        self._crew.answers(*(member.program for member in (*self.subscribers, *self.servers, *self.publishers)))

    def _publisher(self, index: int) -> Member:
        slot = f"p{index}"
        return self._member("publisher", publish, index, lambda: self._publisher(index), slot=slot)

    def _subscriber(self, index: int) -> Member:
        # Of every policy one at least takes from all, and one from a single publisher, where counts are exact.
        policy = _POLICIES[index % len(_POLICIES)]
        pattern = ("t.>", f"t.p{index}.*", ">")[index % 3]
        return self._member(
            "subscriber",
            subscribe,
            index,
            lambda: self._subscriber(index),
            pattern=pattern,
            overflow=policy,
            capacity=self._chance.choice((8, 32, 256)) if policy != "disconnect" else 64,
        )

    def _server(self, index: int) -> Member:
        return self._member("server", serve, index, lambda: self._server(index))

    def _member(
        self, role: str, program: Callable[..., None], index: int, again: Callable[[], Member], **options: Any
    ) -> Member:
        name = f"{role}{index}-{next(self._names)}"
        started = self._crew.start(
            f"{name}",
            program,
            runtime=_RUNTIMES[index % len(_RUNTIMES)],
            address=self.post.address,
            name=name,
            record=str(self._place / name),
            seed=self._chance.randrange(1 << 32),
            rest=self._rest,
            **options,
        )
        return Member(started, again)

    # What is done to them

    def bring_down(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the broker."""
        self._record.note("down")
        self.post.end(number)
        self._record.note("down")

    def replace(self, members: list[Member], index: int) -> None:
        """Kill one with -9, and start another in its place, which is there some time later."""
        member = members[index]
        member.program.signal(signal.SIGKILL)
        self._crew.dismiss(member.program)
        members[index] = member.start()

    def watch(self, seconds: float) -> None:
        """Let them work for so long; BenchmarkError when one of them has ended."""
        self._crew.watch(seconds)

    # The end

    def finish(self) -> History:
        """Let all finish, who are there and can, and put together what they have written."""
        for members in (self.publishers, self.subscribers, self.servers):
            for member in members:
                member.program.tell("finish")
            for member in members:
                member.program.finished()
                self._crew.dismiss(member.program)
        return history_of(read(path) for path in sorted(self._place.iterdir()))

    def verdict(self, history: History, descriptors: int) -> list[Fault]:
        """What was broken. ``descriptors``: how many a broker has that nobody is connected to."""
        faults = check(history)
        deadline = time.monotonic() + _SETTLING
        while (left := self.post.descriptors()) > descriptors and time.monotonic() < deadline:
            time.sleep(0.05)
        if left > descriptors:
            faults.append(Fault("leaked", f"the broker has {left} descriptors open, and had {descriptors}"))
        return faults
