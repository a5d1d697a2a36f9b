"""The marks of an outlet: when had all left that was queued before?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from sockbus.broker.config import Limits
from sockbus.broker.hub import Hub
from sockbus.broker.outlet import Mark, Outlet
from sockbus.protocol.outbox import Lane
from sockbus.transport.base import Transport
from tests.transport.pairs import connected

FRAME = bytes(60_000)


@pytest.fixture
def ends() -> Iterator[tuple[Transport, Transport]]:
    near, far = connected("stream")
    yield near, far
    near.close()
    far.close()


class Stage:
    """An outlet whose socket is full, and its reader."""

    def __init__(self, outlet: Outlet, reader: Transport) -> None:
        self.outlet = outlet
        self._reader = reader

    def put(self, frames: int) -> None:
        for _ in range(frames):
            self.outlet.put(Lane.MESSAGES, FRAME)
        self.outlet.flush()

    async def read(self) -> None:
        """All that is there, and let what waits behind it leave."""
        while self._reader.receive() is not None:
            continue
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def stage(nursery: trio.Nursery, mock_clock: trio.testing.MockClock, ends: tuple[Transport, Transport]) -> Stage:
    return Stage(Outlet(Hub(Limits()), ends[0], nursery, lambda error: None), ends[1])


async def test_mark_behind_nothing_is_passed_at_once(stage: Stage) -> None:
    mark = Mark()
    stage.outlet.place(mark)
    assert mark.moved_at == -math.inf
    stage.put(1)
    stage.outlet.place(mark)
    assert mark.moved_at == -math.inf
    stage.outlet.close()


async def test_mark_keeps_the_time_at_which_the_last_byte_before_it_left(
    stage: Stage, mock_clock: trio.testing.MockClock
) -> None:
    mark, behind = Mark(), Mark()
    stage.put(10)
    stage.outlet.place(mark)
    stage.put(10)
    stage.outlet.place(behind)
    assert mark.moved_at is behind.moved_at is None
    passed: dict[Mark, float] = {}
    while len(passed) < 2:
        mock_clock.jump(1)
        await stage.read()
        for each in (mark, behind):
            if each.moved_at is not None:
                passed.setdefault(each, trio.current_time())
    assert passed[mark] < passed[behind]
    assert (mark.moved_at, behind.moved_at) == (passed[mark], passed[behind])
    stage.outlet.close()


async def test_mark_is_moved_and_taken_away(stage: Stage, mock_clock: trio.testing.MockClock) -> None:
    mark, gone = Mark(), Mark()
    stage.put(10)
    stage.outlet.place(mark)
    stage.outlet.place(gone)
    stage.put(1)
    stage.outlet.place(mark)
    stage.outlet.forget(gone)
    stage.outlet.forget(gone)
    while not stage.outlet.has_flushed:
        mock_clock.jump(1)
        await stage.read()
    assert mark.moved_at == trio.current_time()
    assert gone.moved_at is None
