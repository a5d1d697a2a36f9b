"""The checker finds every kind of fault, and none in what a bus may do."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endurance.checker import check, summary
from benchmarks.endurance.history import History, history_of, matches
from benchmarks.endurance.record import Event, Record, read

POLICIES = ["block", "disconnect", "drop_oldest", "drop_newest", "latest"]
DROPPING = POLICIES[2:]


class Story:
    """A history, as its processes would have written it: one call for each line, at the next moment."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Event]] = {}
        self._at = 0

    def note(self, process: str, event: str, **what: Any) -> None:
        self._at += 1
        self.logs.setdefault(process, []).append({"event": event, "at": self._at, **what})

    def publish(self, publisher: str, number: int, outcome: str = "done", topic: str = "", **what: Any) -> None:
        retain = what.pop("retain", False)
        topic = topic or f"t.{publisher}"
        self.note(publisher, "begin", publisher=publisher, number=number, topic=topic, retain=retain)
        if outcome:
            self.note(publisher, outcome, publisher=publisher, number=number, **what)

    def subscribe(self, overflow: str = "block", pattern: str = "t.>") -> None:
        self.note("s", "subscribe", subscription="s", pattern=pattern, overflow=overflow)
        self.note("s", "in force", subscription="s")

    def take(self, publisher: str, number: int, lost: int = 0, topic: str = "", **what: Any) -> None:
        topic = topic or f"t.{publisher}"
        self.note("s", "take", subscription="s", publisher=publisher, number=number, topic=topic, lost=lost, **what)

    def end(self, lost: int = 0, interrupted: int = 0, how: str = "drained") -> None:
        for name in list(self.logs):
            if name != "s":
                self.note(name, "left", publisher=name)
        self.note("s", "drain", subscription="s")
        self.note("s", "end", subscription="s", how=how, lost=lost, interrupted=interrupted)

    def kinds(self) -> set[str]:
        return {fault.kind for fault in check(history_of(self.logs.values()))}


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.mark.parametrize("overflow", POLICIES)
def test_what_came_in_order_is_right(story: Story, overflow: str) -> None:
    story.subscribe(overflow)
    for number in range(5):
        story.publish("p", number)
        story.take("p", number)
    story.end()
    assert story.kinds() == set()


@pytest.mark.parametrize("overflow", ["block", "disconnect"])
@pytest.mark.parametrize("missing", [0, 2, 4])
def test_lost_wherever_it_was(story: Story, overflow: str, missing: int) -> None:
    story.subscribe(overflow)
    for number in range(5):
        story.publish("p", number)
        if number != missing:
            story.take("p", number)
    story.end()
    assert story.kinds() == {"lost"}


def test_lost_with_a_receipt_of_a_publisher_that_was_killed(story: Story) -> None:
    story.subscribe()
    story.publish("p", 0, receipt=[1, 1, 0, 0])
    story.publish("p", 1)
    story.note("s", "drain", subscription="s")
    story.note("s", "end", subscription="s", how="drained", lost=0, interrupted=0)
    assert story.kinds() == {"lost"}


def test_unacknowledged_end_of_a_publisher_that_was_killed_is_no_fault(story: Story) -> None:
    story.subscribe()
    story.publish("p", 0)
    story.note("p", "confirmed", publisher="p", number=0)
    story.publish("p", 1)
    story.publish("p", 2, "")
    story.take("p", 0)
    story.note("s", "drain", subscription="s")
    story.note("s", "end", subscription="s", how="drained", lost=0, interrupted=0)
    assert story.kinds() == set()


def test_lost_in_silence_by_the_count_alone(story: Story) -> None:
    story.subscribe()
    story.publish("p", 0)
    story.take("p", 0, lost=1)
    story.end(lost=1)
    assert story.kinds() == {"lost"}


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("how", [{"number": 7}, {"publisher": "q"}, {"topic": "t.other"}, {"retained": True}])
def test_invented(story: Story, overflow: str, how: dict[str, Any]) -> None:
    story.subscribe(overflow)
    story.publish("p", 0)
    story.take(**{"publisher": "p", "number": 0, **how})
    story.end()
    assert story.kinds() == {"invented"}


def test_invented_when_it_came_too_early_or_was_refused_or_is_of_another_pattern(story: Story) -> None:
    story.subscribe(pattern="t.*.x")
    story.take("p", 0, topic="t.p.x")
    story.publish("p", 0, topic="t.p.x")
    assert story.kinds() == {"invented"}
    refused = Story()
    refused.subscribe()
    refused.publish("p", 0, "refused")
    refused.take("p", 0)
    assert refused.kinds() == {"invented"}
    other = Story()
    other.subscribe(pattern="t.*.x")
    other.publish("p", 0, topic="t.p.y")
    other.take("p", 0, topic="t.p.y")
    assert other.kinds() == {"invented"}


@pytest.mark.parametrize("overflow", POLICIES)
def test_duplicated_and_reordered(story: Story, overflow: str) -> None:
    story.subscribe(overflow)
    for number in range(3):
        story.publish("p", number)
    swapped = copy.deepcopy(story)
    for number in (0, 1, 1, 2):
        story.take("p", number)
    for number in (0, 2, 1):
        swapped.take("p", number)
    story.end()
    swapped.end()
    assert (story.kinds(), swapped.kinds()) == ({"duplicated"}, {"reordered"})


def test_duplicated_past_an_interruption_and_in_doubt_at_most_once(story: Story) -> None:
    story.subscribe()
    story.publish("p", 0, "in doubt")
    story.take("p", 0)
    once = copy.deepcopy(story)
    story.take("p", 0, interrupted=True)
    once.end()
    story.end(interrupted=1)
    assert (once.kinds(), story.kinds()) == (set(), {"duplicated"})


@pytest.mark.parametrize("overflow", DROPPING)
@pytest.mark.parametrize(
    ("counts", "total", "right"),
    [
        ((2, 0, 1), 4, True),
        ((1, 0, 1), 4, False),  # not counted before the first
        ((2, 1, 0), 4, False),  # counted too early
        ((2, 0, 0), 4, False),  # not counted
        ((2, 0, 2), 4, False),  # counted twice
        ((2, 0, 1), 3, False),  # not in the total, after the last
        ((2, 0, 1), 5, False),
    ],
)
def test_gaps_are_counted_exactly(
    story: Story, overflow: str, counts: tuple[int, ...], total: int, right: bool
) -> None:
    """Of 0 to 7, the messages 2, 3, 5, and 6 come: lost are 0, 1, then 4, and 7."""
    story.subscribe(overflow)
    for number in range(8):
        story.publish("p", number)
    for number, lost in zip((2, 3, 5), counts, strict=True):
        story.take("p", number, lost)
    story.take("p", 6)
    story.end(lost=total)
    assert story.kinds() == (set() if right else {"miscounted"})


def test_count_is_between_bounds_where_several_publish(story: Story) -> None:
    """One of each is lost, and nobody knows which of them first: not more than both, nor less than what is sure."""

    def told(*counts: int, total: int = 2) -> set[str]:
        told = copy.deepcopy(story)
        for (publisher, number), lost in zip((("p", 0), ("q", 0), ("p", 2), ("q", 2)), counts, strict=True):
            told.take(publisher, number, lost)
        told.end(lost=total)
        return told.kinds()

    story.subscribe("drop_oldest")
    for number in range(3):
        for publisher in ("p", "q"):
            story.publish(publisher, number)
    assert told(0, 0, 1, 1) == told(0, 0, 2, 0) == told(0, 1, 1, 0) == set()
    assert told(0, 0, 0, 2) == told(0, 0, 2, 1, total=3) == told(0, 0, 1, 0, total=1) == {"miscounted"}
    assert told(0, 0, 1, 1, total=1) == told(0, 0, 1, 1, total=3) == {"miscounted"}


@pytest.mark.parametrize("overflow", POLICIES)
def test_interruption_may_swallow_and_what_is_behind_it_may_not_be_missing(story: Story, overflow: str) -> None:
    story.subscribe(overflow)
    story.publish("p", 0)
    story.publish("p", 1)
    story.take("p", 0)
    story.note("p", "interrupted", publisher="p", number=1, in_doubt=1)
    story.note("s", "in force", subscription="s")
    for number in range(2, 6):
        story.publish("p", number)
    hole, head, tail = copy.deepcopy(story), copy.deepcopy(story), copy.deepcopy(story)
    for each, numbers in ((story, (2, 3, 4, 5)), (hole, (2, 3, 5)), (head, (3, 4, 5)), (tail, (2, 3, 4))):
        for number in numbers:
            each.take("p", number, interrupted=number == numbers[0])
        each.end(interrupted=1)
    fault = {"miscounted"} if overflow in DROPPING else {"lost"}
    assert (story.kinds(), hole.kinds(), head.kinds(), tail.kinds()) == (set(), fault, fault, fault)


def test_interruption_is_not_told_of(story: Story) -> None:
    story.subscribe()
    story.publish("p", 0)
    story.publish("p", 1)
    story.publish("p", 2)
    story.take("p", 0)
    untold = copy.deepcopy(story)
    untold.take("p", 2)
    untold.end(interrupted=1)
    story.take("p", 2, interrupted=True)
    story.end(interrupted=0)
    assert (untold.kinds(), story.kinds()) == ({"lost"}, {"miscounted"})


def test_receipt_that_does_not_add_up_and_doubt_about_more_than_there_was(story: Story) -> None:
    story.subscribe("drop_oldest")
    story.publish("p", 0, receipt=[2, 0, 1, 0])
    story.publish("q", 0)
    story.note("q", "interrupted", publisher="q", number=0, in_doubt=2)
    story.note("s", "end", subscription="s", how="stalled", lost=0, interrupted=0)
    assert story.kinds() == {"receipt", "in doubt"}


def test_wrong_reply(story: Story) -> None:
    story.note("p", "wrong reply", publisher="p", asked=1, reply="2")
    assert story.kinds() == {"invented"}


def test_stalled_subscription_is_owed_no_end(story: Story) -> None:
    story.subscribe("disconnect")
    for number in range(3):
        story.publish("p", number)
    story.take("p", 0)
    story.end(lost=2, how="stalled")
    assert story.kinds() == set()


@pytest.mark.parametrize("overflow", POLICIES)
def test_kept_values(story: Story, overflow: str) -> None:
    story.publish("p", 0, topic="t.old", retain=True)
    story.publish("p", 1, retain=True)
    story.publish("p", 2, retain=True)
    story.note("p", "confirmed", publisher="p", number=2)
    story.subscribe(overflow)
    story.publish("p", 3)

    def told(*numbers: int) -> set[str]:
        told = copy.deepcopy(story)
        for number in numbers:
            told.take("p", number, topic="t.p" if number else "t.old", retained=number != 3)
        told.end()
        return told.kinds()

    assert told(0, 2, 3) == told(2, 0, 3) == set()
    assert told(0, 1, 3) == told(0, 3) == told(2, 3) == {"lost"}
    assert told(0, 2, 2, 3) == {"duplicated"}
    assert told(0, 3, 2) == told(2, 3, 0) == {"reordered"}


def simulated(seed: int, overflow: str) -> dict[str, list[Event]]:
    """What a bus that keeps its promises does: three publishers, one reader who is slow."""
    chance = random.Random(seed)
    story = Story()
    story.publish("p0", 0)
    story.note("p0", "confirmed", publisher="p0", number=0)
    story.subscribe(overflow)
    queue: list[tuple[str, int, int]] = []
    numbers = {"p0": 1, "p1": 0, "p2": 0}
    order = taken = lost = 0
    for _ in range(60):
        if chance.random() < 0.6:
            publisher = chance.choice(list(numbers))
            story.publish(publisher, numbers[publisher])
            queue.append((publisher, numbers[publisher], order))
            numbers[publisher] += 1
            order += 1
            if overflow in DROPPING and len(queue) > 4:
                queue.pop(-1 if overflow == "drop_newest" else 0)
                lost += 1
        elif queue:
            publisher, number, at = queue.pop(0)
            story.take(publisher, number, at - taken)
            taken = at + 1
    for publisher in numbers:
        story.note(publisher, "left", publisher=publisher)
    story.note("s", "drain", subscription="s")
    for publisher, number, at in queue:
        story.take(publisher, number, at - taken)
        taken = at + 1
    story.note("s", "end", subscription="s", how="drained", lost=lost, interrupted=0)
    return story.logs


def kinds(logs: dict[str, list[Event]]) -> set[str]:
    return {fault.kind for fault in check(history_of(logs.values()))}


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("seed", range(8))
def test_simulated_bus_is_right_and_with_any_one_fault_it_is_not(overflow: str, seed: int) -> None:
    logs = simulated(seed, overflow)
    assert kinds(logs) == set()
    takes = [index for index, event in enumerate(logs["s"]) if event["event"] == "take"]
    for at in takes:
        less, twice = copy.deepcopy(logs), copy.deepcopy(logs)
        del less["s"][at]
        twice["s"].insert(at, logs["s"][at])
        assert kinds(less) == ({"miscounted"} if overflow in DROPPING else {"lost"})
        assert kinds(twice) == {"duplicated"}
        other = next((index for index in takes if index > at and same_publisher(logs["s"], at, index)), None)
        if other is not None:
            swapped = copy.deepcopy(logs)
            swapped["s"][at], swapped["s"][other] = swapped["s"][other], swapped["s"][at]
            # Where something was swapped with what was not yet published, it comes too early as well.
            assert "reordered" in kinds(swapped)
    for change in (-1, 1):
        miscounted = copy.deepcopy(logs)
        miscounted["s"][-1]["lost"] += change
        assert kinds(miscounted) != set()


def same_publisher(log: list[Event], one: int, other: int) -> bool:
    return bool(log[one]["publisher"] == log[other]["publisher"])


def test_summary() -> None:
    history: History = history_of(simulated(1, "drop_oldest").values())
    found = summary(history)
    assert found.published == found.taken + found.lost["drop_oldest"] + 1
    assert (found.in_doubt, found.interruptions) == (0, 0)


def test_record_is_read_as_it_was_written_without_a_torn_line(tmp_path: Path) -> None:
    record = Record(tmp_path / "log")
    record.note("down")
    record.note("begin", publisher="p", number=0, topic="t")
    record.close()
    with (tmp_path / "log").open("a") as file:
        file.write('{"event": "do')
    events = read(tmp_path / "log")
    assert [event["event"] for event in events] == ["down", "begin"]
    assert events[0]["at"] < events[1]["at"]
    assert history_of([events]).downs == [events[0]["at"]]


@pytest.mark.parametrize(
    ("pattern", "topic", "is_matched"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("*.c", "b.c", True),
    ],
)
def test_patterns(pattern: str, topic: str, is_matched: bool) -> None:
    assert matches(pattern, topic) is is_matched
