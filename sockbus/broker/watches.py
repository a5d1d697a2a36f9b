"""Waiting until somebody listens or serves: ``WATCH`` frames, and when they are answered.

A watch is looked at when it comes and whenever a subscription or a server has come, by a task of its own: whatever
somebody waits for, and however many do, the turn of the link that subscribes costs nothing more. A round that took long
is followed by a pause in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, final

import trio

from ..protocol.frame import Kind, control
from ..topic import is_reserved, overlaps
from .group import Group

if TYPE_CHECKING:
    from .hub import Hub
    from .link import Link

__all__ = ["Watch", "Watches"]

# Seconds of looking after which others run, and how much longer than a round the pause behind it is.
TURN_SECONDS = 0.002
PAUSE = 10
# A round shorter than this is followed by none.
SHORT_ROUND = 0.005


@final
class Watch:
    """One of one link: how many of each kind it waits for."""

    __slots__ = ("link", "number", "pattern", "servers", "subscribers")

    def __init__(self, link: Link, number: int, pattern: str, subscribers: int, servers: int) -> None:
        self.link = link
        self.number = number
        self.pattern = pattern
        self.subscribers = subscribers
        self.servers = servers


@final
class Watches:
    """All that are not answered yet."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: dict[Watch, None] = {}
        # Something came that may be what is waited for.
        self._news = trio.Event()

    def begin(self, watch: Watch) -> None:
        """Somebody waits."""
        self._waiting[watch] = None
        self.look()

    def look(self) -> None:
        """A subscription or a server has come."""
        if self._waiting:
            self._news.set()

    def end(self, *watches: Watch) -> bool:
        """They are waited for no more; whether one was not answered yet."""
        before = len(self._waiting)
        for watch in watches:
            self._waiting.pop(watch, None)
        return len(self._waiting) < before

    async def run(self) -> None:
        """Answer those that are met, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            began = trio.current_time()
            # By itself, so that no link is kept by what was looked at last.
            await self._go_round()
            self._hub.settle()
            took = trio.current_time() - began
            if took > SHORT_ROUND:
                await trio.sleep(PAUSE * took)

    async def _go_round(self) -> None:
        turn = trio.current_time()
        for watch in list(self._waiting):
            if watch in self._waiting and self._is_met(watch):
                del self._waiting[watch]
                watch.link.put_control(control(Kind.OK, correlation=watch.number))
            if trio.current_time() - turn > TURN_SECONDS:
                self._hub.settle()
                await trio.lowlevel.checkpoint()
                turn = trio.current_time()

    def _is_met(self, watch: Watch) -> bool:
        hub = self._hub
        left = watch.servers
        if left:
            for _ in self._servers(watch.pattern):
                left -= 1
                if left <= 0:
                    break
            else:
                return False
        left = watch.subscribers
        if left:
            for sink in hub.router.overlapping(watch.pattern):
                left -= len(sink.members) if isinstance(sink, Group) else 1
                if left <= 0:
                    break
            else:
                return False
        return True

    def _servers(self, pattern: str) -> Iterator[object]:
        """Whatever serves there, pages of the broker's own included."""
        switchboard = self._hub.switchboard
        if is_reserved(pattern):
            yield from (topic for topic in switchboard.internal if overlaps(pattern, topic))
        yield from switchboard.router.overlapping(pattern)
