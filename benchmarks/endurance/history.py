"""What all processes have written down, put together: publishers and publishes, subscriptions and what they got.

Nothing here knows sockbus: patterns are matched by a few lines of their own.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .record import Event

__all__ = ["NEVER", "End", "History", "Publish", "Publisher", "Subscription", "Take", "history_of", "matches"]

#: later than everything
NEVER = 1 << 62


@dataclass(slots=True)
class Publish:
    """One call. ``outcome``: "open" (it never came back), "ok", "in doubt", "refused"."""

    number: int
    topic: str
    begun: int
    retain: bool = False
    outcome: str = "open"
    ended: int = 0
    receipt: tuple[int, ...] | None = None


@dataclass(slots=True)
class Publisher:
    """``confirmed``: (when, up to which number); ``doubtful``: the ranges [first, last] of which some may be lost."""

    name: str
    publishes: list[Publish] = field(default_factory=list)
    confirmed: list[tuple[int, int]] = field(default_factory=list)
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    in_doubt: int = 0
    left: bool = False
    wrong_replies: list[str] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Its first number."""
        return self.publishes[0].number if self.publishes else 0

    def publish(self, number: int) -> Publish | None:
        """The publish of that number."""
        index = number - self.first
        return self.publishes[index] if 0 <= index < len(self.publishes) else None

    def confirmed_until(self, at: int) -> int:
        """The last number that was known to be with the broker by then; -1: none."""
        return max((number for when, number in self.confirmed if when <= at), default=-1)

    def is_doubtful(self, number: int) -> bool:
        """Whether it may be lost with a connection of its publisher's."""
        publish = self.publish(number)
        return (
            publish is None
            or publish.outcome == "in doubt"
            or any(first <= number <= last for first, last in self.doubtful)
        )

    def begun_after(self, at: int) -> int:
        """The first number that was begun after that; one more than all when there is none."""
        return self.first + bisect.bisect_right(self.publishes, at, key=lambda publish: publish.begun)


@dataclass(frozen=True, slots=True)
class Take:
    """One message as it came."""

    at: int
    publisher: str
    number: int
    topic: str
    lost: int = 0
    interrupted: bool = False
    retained: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """How a subscription ended, "drained" or "stalled", and its totals."""

    how: str
    lost: int
    interrupted: int


@dataclass(slots=True)
class Subscription:
    """``in_force``: when it was known to be, each time; ``drained_at``: when no more was asked for."""

    name: str
    pattern: str
    overflow: str
    asked: int
    in_force: list[int] = field(default_factory=list)
    takes: list[Take] = field(default_factory=list)
    drained_at: int | None = None
    end: End | None = None

    def in_force_since(self, interruptions: int, until: int, downs: Sequence[int]) -> int:
        """Since when it surely was in force at a time, after so many interruptions; at the end of time: not known.

        It is told a moment later than it is so, and a broker may have gone meanwhile.
        """
        known = [at for at in self.in_force if at < until]
        if len(known) <= interruptions or any(known[-1] < down < until for down in downs):
            return NEVER
        return known[-1]

    @property
    def interruptions(self) -> int:
        """How many its messages tell of."""
        return sum(take.interrupted for take in self.takes)


@dataclass(slots=True)
class History:
    """``downs``: when brokers were about to be killed."""

    publishers: dict[str, Publisher] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    downs: list[int] = field(default_factory=list)


def matches(pattern: str, topic: str) -> bool:
    """Whether a subscription to the pattern gets what is published on the topic."""
    wanted, tokens = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(one in ("*", other) for one, other in zip(wanted, tokens, strict=True))


def history_of(logs: Iterable[Iterable[Event]]) -> History:
    """What the events of each process, in its order, tell."""
    history = History()
    for log in logs:
        for event in log:
            if "publisher" in event and "subscription" not in event:
                _publisher(history.publishers.setdefault(event["publisher"], Publisher(event["publisher"])), event)
            elif "subscription" in event:
                _subscription(history.subscriptions, event)
            elif event["event"] == "down":
                history.downs.append(event["at"])
    history.downs.sort()
    return history


def _publisher(publisher: Publisher, event: Event) -> None:
    at, number = event["at"], event.get("number", -1)
    publish = publisher.publish(number)
    match event["event"]:
        case "begin":
            if publisher.publishes and number != publisher.publishes[-1].number + 1:
                raise ValueError(f"{publisher.name} began {number} after {publisher.publishes[-1].number}")
            publisher.publishes.append(Publish(number, event["topic"], at, event.get("retain", False)))
        case "done" | "refused" | "in doubt" as outcome:
            assert publish is not None
            publish.outcome = "ok" if outcome == "done" else outcome
            publish.ended = at
            if event.get("receipt") is not None:
                publish.receipt = tuple(event["receipt"])
        case "confirmed":
            publisher.confirmed.append((at, number))
        case "interrupted":
            known = publisher.confirmed_until(at)
            publisher.doubtful.append((max(known + 1, publisher.first), number))
            publisher.in_doubt = event["in_doubt"]
        case "wrong reply":
            publisher.wrong_replies.append(f"asked {event['asked']!r}, and was answered {event['reply']}")
        case "left":
            publisher.left = True
            if publisher.publishes:
                publisher.confirmed.append((at, publisher.publishes[-1].number))


def _subscription(subscriptions: dict[str, Subscription], event: Event) -> None:
    at, name = event["at"], event["subscription"]
    if event["event"] == "subscribe":
        subscriptions[name] = Subscription(name, event["pattern"], event["overflow"], at)
        return
    subscription = subscriptions[name]
    match event["event"]:
        case "in force":
            subscription.in_force.append(at)
        case "take":
            subscription.takes.append(
                Take(
                    at,
                    event["publisher"],
                    event["number"],
                    event["topic"],
                    event.get("lost", 0),
                    event.get("interrupted", False),
                    event.get("retained", False),
                )
            )
        case "drain":
            subscription.drained_at = at
        case "end":
            subscription.end = End(event["how"], event["lost"], event["interrupted"])
