"""The verdict on a history: which promises were broken, each with its evidence in one line.

Nothing invented, nothing delivered twice, the numbers of each publisher rising, also past interruptions: of every
subscription. Then, for what a subscription got between two interruptions (a *stretch*):

- ``block`` and ``disconnect``: nothing is missing between two messages of one publisher, nothing that was begun while
  it was known to be in force, and in the end nothing that was acknowledged. Neither has anything that was ``lost``.
- policies that drop: what was missing is what was counted, message by message, and in the end published == received
  + lost. Where only one publisher matches, this is exact. Where several do, nobody knows in which order the broker
  got what was dropped, and the count has a lower and an upper bound (``counting``).
- kept values come at most once, before all live ones of their publisher, and those that were kept before come at all.

What nobody promises is left out: what its publisher was told to be in doubt, or has refused; what was published by who
was killed, unless it is between two messages that came; whatever an interruption may have swallowed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .counting import Counting, Matching
from .history import History, Publish, Publisher, Subscription, Take, matches

__all__ = ["Fault", "Summary", "check", "summary"]

_NEVER_DROPS = ("block", "disconnect")


class Fault(NamedTuple):
    """A promise that was broken: "invented", "duplicated", "reordered", "lost", "miscounted", "receipt", "in doubt"."""

    kind: str
    text: str


@dataclass(slots=True)
class Summary:
    """What a history is about, for people."""

    published: int
    taken: int
    lost: Counter[str]
    in_doubt: int
    interruptions: int

    def add(self, other: Summary) -> None:
        """Make it one about both."""
        self.published += other.published
        self.taken += other.taken
        self.lost.update(other.lost)
        self.in_doubt += other.in_doubt
        self.interruptions += other.interruptions


def summary(history: History) -> Summary:
    lost: Counter[str] = Counter()
    taken = interruptions = 0
    for subscription in history.subscriptions.values():
        end = subscription.end
        taken += len(subscription.takes)
        lost[subscription.overflow] += end.lost if end else sum(take.lost for take in subscription.takes)
        interruptions += end.interrupted if end else sum(take.interrupted for take in subscription.takes)
    publishers = history.publishers.values()
    unsure = sum(publish.outcome == "in doubt" for publisher in publishers for publish in publisher.publishes)
    in_doubt = unsure + sum(publisher.in_doubt for publisher in publishers)
    return Summary(sum(len(publisher.publishes) for publisher in publishers), taken, lost, in_doubt, interruptions)


def check(history: History) -> list[Fault]:
    """All faults, in no order that matters."""
    faults = [fault for publisher in history.publishers.values() for fault in _answers(publisher)]
    for subscription in history.subscriptions.values():
        found = list(_each_take(history, subscription))
        if not found:
            # Whoever got what was never sent cannot be asked what is missing.
            found += _kept_values(history, subscription)
            found += _missing(history, subscription)
        faults += found
    return faults


def _answers(publisher: Publisher) -> Iterator[Fault]:
    for reply in publisher.wrong_replies:
        yield Fault("invented", f"{publisher.name} {reply}")
    for publish in publisher.publishes:
        if publish.receipt is not None:
            matched, *others = publish.receipt
            if matched != sum(others):
                yield Fault("receipt", f"{_name(publisher.name, publish.number)} matched {matched}, and got {others}")
    if publisher.in_doubt > (most := sum(last - first + 1 for first, last in publisher.doubtful)):
        yield Fault("in doubt", f"{publisher.name} says that {publisher.in_doubt} are, and there were {most}")


# One message


def _each_take(history: History, subscription: Subscription) -> Iterator[Fault]:
    seen: set[tuple[str, int]] = set()
    kept: set[tuple[str, int]] = set()
    last: dict[str, int] = {}
    highest_kept: dict[str, int] = {}
    live = ""
    for take in subscription.takes:
        what = f"{subscription.name} got {_name(take.publisher, take.number)}"
        publisher = history.publishers.get(take.publisher)
        fault = _origin(subscription, take, publisher.publish(take.number) if publisher is not None else None)
        if fault:
            yield Fault("invented", f"{what} {fault}")
        if take.interrupted:
            kept.clear()
            highest_kept.clear()
            live = ""
        key = take.publisher, take.number
        if take.retained:
            if key in kept:
                yield Fault("duplicated", f"{what} twice as a kept value")
            elif live:
                yield Fault("reordered", f"{what} as a kept value after the live {live}")
            kept.add(key)
            highest_kept[take.publisher] = max(take.number, highest_kept.get(take.publisher, -1))
            continue
        if key in seen or key in kept:
            yield Fault("duplicated", f"{what} twice")
        elif take.number < last.get(take.publisher, -1):
            yield Fault("reordered", f"{what} after {last[take.publisher]}")
        elif take.number <= highest_kept.get(take.publisher, -1):
            yield Fault("reordered", f"{what} after the kept value {highest_kept[take.publisher]}")
        seen.add(key)
        live = live or _name(*key)
        last[take.publisher] = take.number


def _origin(subscription: Subscription, take: Take, publish: Publish | None) -> str:
    """What is wrong about where a message is said to come from."""
    if publish is None:
        return "which was never published"
    if publish.topic != take.topic:
        return f"on {take.topic}, and it was published on {publish.topic}"
    if not matches(subscription.pattern, take.topic):
        return f"on {take.topic}, and has subscribed to {subscription.pattern}"
    if publish.outcome == "refused":
        return "which was refused"
    if publish.begun > take.at:
        return "before it was published"
    if take.retained and not publish.retain:
        return "as a kept value, and it was not to be kept"
    return ""


# Kept values


def _kept_values(history: History, subscription: Subscription) -> Iterator[Fault]:
    """Those that were with the broker before anybody subscribed must come, to whoever stayed to the end."""
    if subscription.end is None or subscription.end.how != "drained":
        return
    first, *_ = _stretches(subscription.takes)
    came: dict[str, int] = {}
    for take in first:
        if take.retained:
            came[take.topic] = max(take.number, came.get(take.topic, -1))
    if any(subscription.asked < down for down in history.downs):
        # The broker may have died with what was on its way.
        return
    since = max(history.downs, default=0)
    for publisher in history.publishers.values():
        kept: dict[str, int] = {}
        for publish in publisher.publishes:
            if (
                publish.retain
                and publish.outcome == "ok"
                and since < publish.begun
                and publish.ended < subscription.asked
            ):
                kept[publish.topic] = publish.number
        for topic, number in kept.items():
            if matches(subscription.pattern, topic) and came.get(topic, -1) < number:
                yield Fault("lost", f"{subscription.name} did not get {_name(publisher.name, number)}, which was kept")


# What is missing


def _missing(history: History, subscription: Subscription) -> Iterator[Fault]:
    publishers = {name: Matching(history, publisher, subscription) for name, publisher in history.publishers.items()}
    stretches = list(_stretches(subscription.takes))
    total = 0
    for index, takes in enumerate(stretches):
        counting = Counting(history, subscription, publishers, takes, index)
        if subscription.overflow in _NEVER_DROPS:
            yield from _holes(subscription, publishers, takes, counting)
        elif fault := counting.fault(is_last=index == len(stretches) - 1, before=total):
            yield Fault("miscounted", fault)
        total += sum(take.lost for take in takes)
    end = subscription.end
    if end is None:
        return
    if end.lost < total:
        yield Fault("miscounted", f"{subscription.name} lost {end.lost} in all, and {total} before its messages")
    if end.interrupted < len(stretches) - 1:
        yield Fault("miscounted", f"{subscription.name} was interrupted {end.interrupted} times, and tells of more")
    if end.how == "drained" and subscription.overflow in _NEVER_DROPS:
        if end.lost:
            yield Fault("lost", f"{subscription.name} has lost {end.lost}, and its policy is {subscription.overflow}")
        for matching in publishers.values():
            yield from _tail(subscription, matching)


def _holes(
    subscription: Subscription, publishers: dict[str, Matching], takes: Sequence[Take], counting: Counting
) -> Iterator[Fault]:
    last: dict[str, int] = {}
    for take in takes:
        if take.lost:
            yield Fault("lost", f"{subscription.name} lost {take.lost} before {_name(take.publisher, take.number)}")
        if take.retained:
            continue
        matching = publishers[take.publisher]
        before = last.get(take.publisher)
        missing = matching.between(before, take.number) if before is not None else counting.owed_before(take)
        if missing:
            between = f"after {before}" if before is not None else "in force before it was begun,"
            yield Fault(
                "lost",
                f"{subscription.name} ({subscription.overflow}) did not get {_name(take.publisher, missing[0])} and "
                f"{len(missing) - 1} more: {between} it got {take.number}",
            )
        last[take.publisher] = take.number


def _tail(subscription: Subscription, matching: Matching) -> Iterator[Fault]:
    """What was acknowledged while it was in force for the last time."""
    taken = {take.number for take in subscription.takes if take.publisher == matching.publisher.name}
    for number in matching.acknowledged():
        if number not in taken:
            yield Fault(
                "lost",
                f"{subscription.name} ({subscription.overflow}) never got {_name(matching.publisher.name, number)}, "
                f"which was acknowledged",
            )
            return


def _stretches(takes: Iterable[Take]) -> Iterator[list[Take]]:
    """What came between two interruptions; the first may be empty."""
    stretch: list[Take] = []
    for take in takes:
        if take.interrupted:
            yield stretch
            stretch = []
        stretch.append(take)
    yield stretch


def _name(publisher: str, number: int) -> str:
    return f"{publisher}/{number}"
