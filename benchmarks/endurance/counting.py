"""How many messages a subscription must have lost, and how many it may have lost, up to each message that it got.

Only the order of each publisher is known. So what is missing of a publisher below the last number that came of it was
lost; what is missing between that and the next that came may have been lost by now, or will be.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import final

from .history import NEVER, History, Publisher, Subscription, Take, matches

__all__ = ["Counting", "Matching"]


@final
class Matching:
    """What one publisher has published that matches one subscription."""

    def __init__(self, history: History, publisher: Publisher, subscription: Subscription) -> None:
        self.publisher = publisher
        self._downs = history.downs
        self._subscription = subscription
        self.numbers = [
            publish.number
            for publish in publisher.publishes
            if publish.outcome != "refused" and matches(subscription.pattern, publish.topic)
        ]

    def between(self, first: int, last: int) -> list[int]:
        """Those between two numbers, both excluded."""
        return self.numbers[bisect.bisect_right(self.numbers, first) : bisect.bisect_left(self.numbers, last)]

    def count(self, first: int, last: int) -> int:
        """How many those are."""
        return max(0, bisect.bisect_left(self.numbers, last) - bisect.bisect_right(self.numbers, first))

    def owed_from(self, at: int, until: int) -> list[int]:
        """Those below ``until`` that were begun after that time and are in no doubt."""
        publisher = self.publisher
        sure = publisher.begun_after(NEVER) if publisher.left else publisher.confirmed_until(NEVER) + 1
        return [
            number
            for number in self.between(publisher.begun_after(at) - 1, min(until, sure))
            if not publisher.is_doubtful(number)
        ]

    def acknowledged(self) -> list[int]:
        """Those that must have come when the subscription has been drained."""
        subscription, publisher = self._subscription, self.publisher
        if subscription.drained_at is None:
            return []
        since = subscription.in_force_since(subscription.interruptions, subscription.drained_at, self._downs)
        confirmed = publisher.confirmed_until(subscription.drained_at)
        return [
            number
            for number in self.between(publisher.begun_after(since) - 1, self._end)
            if not publisher.is_doubtful(number) and (number <= confirmed or self._has_receipt(number))
        ]

    @property
    def _end(self) -> int:
        return self.numbers[-1] + 1 if self.numbers else 0

    def _has_receipt(self, number: int) -> bool:
        publish = self.publisher.publish(number)
        drained_at = self._subscription.drained_at
        return publish is not None and publish.receipt is not None and publish.ended < (drained_at or 0)


@final
class Counting:
    """One stretch of a subscription: what came after so many interruptions."""

    def __init__(
        self,
        history: History,
        subscription: Subscription,
        publishers: Mapping[str, Matching],
        takes: Sequence[Take],
        interruptions: int,
    ) -> None:
        self._subscription = subscription
        self._publishers = publishers
        self._all = takes
        self._first = not interruptions
        begun = takes[0].at if takes else NEVER
        #: since when it was surely in force
        self._since = subscription.in_force_since(interruptions, begun, history.downs)
        self._floors = self._before_this()

    def owed_before(self, take: Take) -> list[int]:
        """What should have come before the first message of a publisher in this stretch."""
        return self._publishers[take.publisher].owed_from(self._since, take.number)

    def fault(self, *, is_last: bool, before: int) -> str:
        """The first message before which the count is wrong, or the end. ``before``: what was counted until here."""
        nexts = self._nexts()
        last: dict[str, int] = {}
        lower = missing = counted = inclusive = 0
        for index, take in enumerate(self._all):
            inclusive += take.lost
            if index or self._first:
                counted += take.lost
            if not take.retained:
                came = self._publishers[take.publisher]
                previous = last.get(take.publisher)
                if previous is None:
                    lower += len(self.owed_before(take))
                    missing += came.count(self._floors[came.publisher.name], take.number)
                else:
                    between = came.count(previous, take.number)
                    lower += between
                    missing += between
                last[take.publisher] = take.number
            if inclusive < lower:
                return self._sentence(take, inclusive, f"at least {lower}")
            upper = missing + sum(
                came.count(
                    last.get(name, self._floors[came.publisher.name]),
                    min(nexts[index].get(name, NEVER), _begun(came, take)),
                )
                for name, came in self._publishers.items()
                if take.retained or name != take.publisher
            )
            if counted > upper:
                return self._sentence(take, counted, f"at most {upper}")
        if not is_last or self._subscription.end is None or self._subscription.end.how != "drained":
            return ""
        return self._fault_at_end(last, lower, missing, inclusive - counted, before)

    def _fault_at_end(self, last: Mapping[str, int], lower: int, missing: int, skipped: int, before: int) -> str:
        end = self._subscription.end
        assert end is not None
        counted = end.lost - before
        for name, came in self._publishers.items():
            since = last.get(name, -1)
            lower += sum(number > since for number in came.acknowledged())
            missing += came.count(last.get(name, self._floors[came.publisher.name]), NEVER)
        if counted < lower:
            return self._sentence(None, counted, f"at least {lower}")
        if counted - skipped > missing:
            return self._sentence(None, counted - skipped, f"at most {missing}")
        return ""

    def _before_this(self) -> dict[str, int]:
        """Of each publisher, the last number that surely was before this stretch."""
        if self._first:
            asked = self._subscription.asked
            return {name: came.publisher.confirmed_until(asked) for name, came in self._publishers.items()}
        floors = dict.fromkeys(self._publishers, -1)
        for take in self._subscription.takes:
            if take is self._all[0]:
                break
            floors[take.publisher] = max(take.number, floors[take.publisher])
        return floors

    def _nexts(self) -> list[dict[str, int]]:
        """For each message: the next number of each publisher that comes after it."""
        nexts: list[dict[str, int]] = []
        coming: dict[str, int] = {}
        for take in reversed(self._all):
            nexts.append(dict(coming))
            if not take.retained:
                coming[take.publisher] = take.number
        nexts.reverse()
        return nexts

    def _sentence(self, take: Take | None, counted: int, wanted: str) -> str:
        subscription = self._subscription
        until = f"until {take.publisher}/{take.number}" if take is not None else "in the end"
        return f"{subscription.name} ({subscription.overflow}) counted {counted} lost {until}; it was {wanted}"


def _begun(came: Matching, take: Take) -> int:
    """The first number that was begun after that message was taken."""
    return came.publisher.begun_after(take.at)
