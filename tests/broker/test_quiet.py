"""A log that cannot be flooded, by a clock that only the test moves."""

from __future__ import annotations

import pytest

from sockbus.broker import quiet
from sockbus.broker.quiet import BURST, NAMES_CHARACTERS, PERIOD, SUBJECTS, QuietLog


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


def test_what_was_held_back_is_said_though_no_other_line_comes(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog("sockbus.test")
    for subject in ("uid 7", "uid 8"):
        for _ in range(BURST + 1):
            log.say(subject, "again")
        clock.now += PERIOD / 2
    log.sum_up()
    assert said(caplog)[2 * BURST :] == ["uid 7: 1 more lines like this were held back"]
    log.close()
    assert said(caplog)[2 * BURST + 1 :] == ["uid 8: 1 more lines like this were held back"]
    clock.now += PERIOD
    log.sum_up()
    assert len(said(caplog)) == 2 * BURST + 2


def test_what_was_held_back_is_named_as_far_as_a_line_goes(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog("sockbus.test")
    size = 100
    most = NAMES_CHARACTERS // size
    answers = [log.say("uid 7", "line", name=f"{number:0{size}}") for number in range(BURST + most + 5)]
    # Whoever is told False may say it again.
    assert answers == [True] * (BURST + most) + [False] * 5
    clock.now += PERIOD
    log.sum_up()
    names = ", ".join(f"{number:0{size}}" for number in range(BURST, BURST + most))
    assert said(caplog)[BURST:] == [
        f"uid 7: {most + 5} more lines like this were held back, about {names} and 5 others"
    ]
    assert not log._periods


def test_all_names_are_said_where_they_fit(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog("sockbus.test")
    for number in range(BURST + 2):
        log.say("uid 7", "line", name=f"n{number}")
    log.close()
    assert said(caplog)[BURST:] == [f"uid 7: 2 more lines like this were held back, about n{BURST}, n{BURST + 1}"]


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
        assert len(log._periods) <= SUBJECTS
    assert len(said(caplog)) == 5 * SUBJECTS
