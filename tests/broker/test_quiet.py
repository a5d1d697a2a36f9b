"""A log that cannot be flooded, by a clock that only the test moves."""

from __future__ import annotations

import pytest

from sockbus.broker import quiet
from sockbus.broker.quiet import BURST, PERIOD, SUBJECTS, QuietLog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(quiet, "time", clock)
    return clock


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sockbus.test"]


@pytest.mark.parametrize(("lines", "heard"), [(BURST - 1, BURST - 1), (BURST, BURST), (BURST + 1, BURST)])
def test_subject_may_say_so_much_in_a_period(
    lines: int, heard: int, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = QuietLog("sockbus.test")
    for number in range(lines):
        log.say("uid 7", "line %d", number)
    assert said(caplog) == [f"line {number}" for number in range(heard)]


def test_what_was_held_back_is_said_with_the_next_line(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog("sockbus.test")
    for _ in range(BURST + 25):
        log.say("uid 7", "again")
    clock.now += PERIOD
    log.say("uid 7", "later")
    assert said(caplog)[BURST:] == ["uid 7: 25 more lines like this were held back", "later"]


def test_nothing_is_said_of_nothing_held_back(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog("sockbus.test")
    for _ in range(BURST):
        log.say("uid 7", "again")
    clock.now += PERIOD
    log.say("uid 7", "later")
    assert said(caplog) == ["again"] * BURST + ["later"]


def test_one_subject_silences_no_other(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog("sockbus.test")
    for _ in range(1000):
        log.say("uid 7", "flood")
    log.say("uid 8", "heard")
    assert said(caplog) == ["flood"] * BURST + ["heard"]


def test_subjects_are_bounded(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog("sockbus.test")
    for number in range(5 * SUBJECTS):
        log.say(f"host {number}", "hello")
        assert len(log._said) <= SUBJECTS
    assert len(said(caplog)) == 5 * SUBJECTS
