"""Who waits for another state gets one that it has not seen, and gets it."""

from __future__ import annotations

import pytest

from sockbus.client.need import Steps
from sockbus.client.standing import Seen, Standing
from sockbus.state import BusState

CONNECTED, CONNECTING, WAITING, CLOSED = BusState.CONNECTED, BusState.CONNECTING, BusState.WAITING, BusState.CLOSED


class Waiter:
    """Steps that wait at a gate, gone on with when they are woken."""

    def __init__(self, standing: Standing, steps: Steps[object]) -> None:
        self._standing = standing
        self._steps = steps
        self.result: object = None
        self.is_woken = False
        self.go_on()

    def go_on(self) -> None:
        self.is_woken = False
        try:
            assert next(self._steps) is self._standing.changed
        except StopIteration as done:
            self.result = done.value
        else:
            self._standing.changed.attach(self.wake)

    def wake(self) -> None:
        self.is_woken = True


def changed(*states: BusState) -> Standing:
    standing = Standing()
    for state in states:
        standing.enter(state)
    return standing


@pytest.mark.parametrize("seen", [CONNECTED, WAITING])
def test_what_is_over_before_a_task_looks_is_waited_on_for(seen: BusState) -> None:
    standing = changed(CONNECTED, WAITING) if seen is WAITING else changed(CONNECTED)
    waiter = Waiter(standing, standing.other_than(seen))
    for _ in range(2):
        standing.enter(CONNECTING)
        standing.enter(seen)
        assert waiter.is_woken
        waiter.go_on()
        assert waiter.result is None
    standing.enter(CONNECTING)
    waiter.go_on()
    assert waiter.result is CONNECTING


def test_the_state_that_it_is_in_is_no_change() -> None:
    standing = changed(CONNECTED)
    waiter = Waiter(standing, standing.other_than(CONNECTED))
    standing.enter(CONNECTED)
    assert not waiter.is_woken
    assert standing.now == Seen(1, CONNECTED)


@pytest.mark.parametrize("between", [(), (CONNECTING, WAITING), (CONNECTING, CONNECTED, WAITING)])
def test_a_thread_misses_no_change_that_is_over(between: tuple[BusState, ...]) -> None:
    standing = changed(CONNECTED)
    seen = standing.now
    for state in (WAITING, *between, CONNECTING, CONNECTED):
        standing.enter(state)
    found: list[BusState] = []
    while seen != standing.now:
        found.append(seen.state)
        after = Waiter(standing, standing.after(seen)).result
        assert isinstance(after, Seen)
        seen = after
    assert [*found, seen.state] == [CONNECTED, CONNECTING, CONNECTED]


def test_a_thread_waits_where_nothing_has_changed() -> None:
    standing = changed(CONNECTED)
    waiter = Waiter(standing, standing.after(standing.now))
    assert not waiter.is_woken
    standing.enter(WAITING)
    waiter.go_on()
    assert waiter.result == Seen(2, WAITING)


def test_the_last_state_stays_and_is_given_at_once() -> None:
    standing = changed(CONNECTED, CLOSED)
    standing.enter(WAITING)
    assert standing.now == Seen(2, CLOSED)
    assert Waiter(standing, standing.other_than(CLOSED)).result is CLOSED
    assert Waiter(standing, standing.after(standing.now)).result == standing.now
    assert Waiter(standing, standing.after(Seen(1, CONNECTED))).result == standing.now
