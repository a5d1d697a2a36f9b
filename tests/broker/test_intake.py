"""The arithmetic of docs/wire.md, "Windows", at its edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockbus.broker.intake import Intake
from sockbus.errors import LimitExceeded
from sockbus.protocol.frame import MIN_FRAME, Kind, encode
from sockbus.protocol.inbox import Run


def run_of(*sizes: int) -> Run:
    """A run of frames of these sizes."""
    frames = [encode(Kind.PUBLISH, payload=bytes(size - MIN_FRAME)) for size in sizes]
    data = b"".join(frames)
    return Run(data, 0, len(data), Kind.PUBLISH, b"", 0, count=len(sizes))


@pytest.mark.parametrize(("sent", "may"), [(999, True), (1000, False), (1001, False)])
def test_message_may_start_below_the_window_only(sent: int, may: bool) -> None:
    intake = Intake("publish", 1000, 4)
    intake.start(sent, 0)
    if may:
        intake.start(5000, 0)
        assert intake.received_bytes == sent + 5000
    else:
        with pytest.raises(LimitExceeded, match="publish"):
            intake.start(1, 0)
        assert intake.received_bytes == sent


@pytest.mark.parametrize(("sent", "may"), [(3, True), (4, False), (5, False)])
def test_message_with_fds_may_start_below_the_window_of_fds_only(sent: int, may: bool) -> None:
    intake = Intake("request", 1000, 4)
    intake.start(1, sent)
    intake.start(1, 0)
    if may:
        intake.start(1, 3)
        assert intake.received_fds == sent + 3
    else:
        with pytest.raises(LimitExceeded):
            intake.start(1, 1)
        assert intake.received_fds == sent


@pytest.mark.parametrize(
    ("sizes", "may"),
    [
        ([100] * 10, True),
        ([100] * 9 + [500], True),
        ([100] * 11, False),
        ([999, 30], True),
        ([1000, 30], False),
        ([5000], True),
        ([5000, 26], False),
    ],
)
def test_run_counts_message_by_message(sizes: list[int], may: bool) -> None:
    intake = Intake("publish", 1000, 4)
    if may:
        intake.start_run(run_of(*sizes))
        assert intake.received_bytes == sum(sizes)
    else:
        with pytest.raises(LimitExceeded):
            intake.start_run(run_of(*sizes))


@given(st.lists(st.integers(26, 600), min_size=1, max_size=30), st.integers(1, 5000))
def test_run_is_what_its_messages_are_one_by_one(sizes: list[int], window: int) -> None:
    together, apart = Intake("publish", window, 1), Intake("publish", window, 1)

    def one_by_one() -> None:
        for size in sizes:
            apart.start(size, 0)

    def allowed(start: object) -> bool:
        try:
            start()  # type: ignore[operator]
        except LimitExceeded:
            return False
        return True

    assert allowed(lambda: together.start_run(run_of(*sizes))) == allowed(one_by_one)


def test_worked_example_of_the_wire() -> None:
    """docs/wire.md: 263 messages of cost 4,000 fit, 200 of them are taken over."""
    intake = Intake("publish", 1 << 20, 64)
    for _ in range(263):
        intake.start(4000, 0)
    with pytest.raises(LimitExceeded):
        intake.start(4000, 0)
    for _ in range(200):
        intake.take(4000, 0)
    assert intake.due()
    assert intake.grant() == (1_848_576, 64)
    intake.start(4000, 0)


def test_little_is_granted_only_when_little_is_left() -> None:
    """A flowing peer hears every half window; one that is nearly stuck hears of every byte."""
    flowing = Intake("publish", 1000, 64)
    flowing.start(499, 0)
    flowing.take(499, 0)
    assert not flowing.due()
    flowing.start(1, 0)
    flowing.take(1, 0)
    assert flowing.due()

    stuck = Intake("publish", 1000, 64)
    stuck.start(990, 0)
    stuck.start(10, 0)
    stuck.take(10, 0)
    assert stuck.due()


def test_nothing_is_due_where_nothing_was_taken() -> None:
    intake = Intake("publish", 1000, 4)
    intake.start(1000, 4)
    assert not intake.due()
    assert intake.grant() == (1000, 4)


def test_window_of_fds_is_granted_by_itself() -> None:
    intake = Intake("publish", 1 << 20, 4)
    for _ in range(4):
        intake.start(30, 1)
    intake.take(30, 1)
    assert intake.due()
    assert intake.grant() == ((1 << 20) + 30, 5)


def test_closed_window_lets_nothing_start_until_it_is_granted() -> None:
    intake = Intake("publish", 1000, 4, closed=True)
    with pytest.raises(LimitExceeded):
        intake.start(1, 0)
    assert intake.due()
    assert intake.grant() == (1000, 4)
    intake.start(1, 1)


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 5), st.booleans()), max_size=60))
def test_grants_never_fall_and_never_exceed_what_was_taken_and_the_window(steps: list[tuple[int, int, bool]]) -> None:
    intake = Intake("publish", 3000, 8)
    held: list[tuple[int, int]] = []
    told = intake.told_bytes, intake.told_fds
    for cost, fds, take in steps:
        if take and held:
            intake.take(*held.pop())
        try:
            intake.start(cost, fds)
        except LimitExceeded:
            continue
        held.append((cost, fds))
        if intake.due():
            before, told = told, intake.grant()
            assert told[0] >= before[0]
            assert told[1] >= before[1]
        assert told[0] <= intake.taken_bytes + 3000
        assert told[1] <= intake.taken_fds + 8
        assert intake.held_bytes == sum(cost for cost, _ in held)
        assert intake.held_fds == sum(fds for _, fds in held)


def test_what_is_written_off_is_held_no_more() -> None:
    intake = Intake("publish", 1000, 4)
    intake.start(700, 3)
    intake.write_off(200)
    assert (intake.held_bytes, intake.held_fds) == (200, 0)
