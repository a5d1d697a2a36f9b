"""From a topic to its plan: the sinks that get what is published there.

The router owns the index of sinks and the plans made from it. Publishing asks for a plan and looks nothing
up again until the plan is stale; so a change of subscription must find every plan that it touches. It knows
topics as str, and nothing of who publishes.

Invariant: a plan that is not stale has exactly the sinks, in order of addition, that the index has for its
topic. Links keep plans too, and must look at ``stale`` before each use; a plan never changes otherwise, so
whoever is in the middle of one goes on with the sinks that it had.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar, final

from ..topic import has_wildcard, matcher
from .index import Index

__all__ = ["MAX_PLANNED_SINKS", "MAX_PLANS", "Plan", "Router"]

T = TypeVar("T", bound=Hashable)

# A wildcard that comes or goes is held against every cached topic: 8,192 of three tokens take 0.7 to 2 ms,
# of 32 tokens 4 ms (Python 3.11); with `topic.matches` three took 4 ms. A new plan costs 2 µs.
MAX_PLANS = 8192
# Without it, many topics with many sinks each would hold as many pointers as both multiplied. 8 MiB of them.
MAX_PLANNED_SINKS = 1 << 20


@final
class Plan(Generic[T]):
    """The sinks of one topic. Once ``stale``, ask the router for a new one; it never becomes fresh again."""

    __slots__ = ("sinks", "stale")

    def __init__(self, sinks: tuple[T, ...]) -> None:
        self.sinks = sinks
        self.stale = False


@final
class Router(Generic[T]):
    """Sinks under patterns, and the plans of the topics in use."""

    __slots__ = ("_index", "_max_planned_sinks", "_max_plans", "_planned_sinks", "_plans")

    def __init__(self, *, max_plans: int = MAX_PLANS, max_planned_sinks: int = MAX_PLANNED_SINKS) -> None:
        self._index: Index[T] = Index()
        self._plans: dict[str, Plan[T]] = {}
        self._planned_sinks = 0
        self._max_plans = max_plans
        self._max_planned_sinks = max_planned_sinks

    def add(self, pattern: str, sink: T) -> None:
        """Deliver to the sink what matches the pattern. Raises ValueError if it is there already."""
        self._index.add(pattern, sink)
        self._retire_matching(pattern)

    def remove(self, pattern: str, sink: T) -> None:
        """Undo ``add``. Raises KeyError if the sink is not under the pattern."""
        self._index.remove(pattern, sink)
        self._retire_matching(pattern)

    def remove_all(self, pairs: Iterable[tuple[str, T]]) -> None:
        """``remove`` for each pattern and sink, in one pass over the plans.

        For a link that ends: one by one, its 512 wildcards would hold up everybody for half a second. Raises
        KeyError as ``remove`` does.
        """
        gone = list(pairs)
        sinks = {sink for _, sink in gone}
        # Whatever one of the patterns matches has its sink in the plan: quicker to see than 512 matches.
        self._retire([topic for topic, plan in self._plans.items() if not sinks.isdisjoint(plan.sinks)])
        for pattern, sink in gone:
            self._index.remove(pattern, sink)

    def plan(self, topic: str) -> Plan[T]:
        """The plan of a valid topic: the one in the cache, or a new one."""
        plan = self._plans.get(topic)
        if plan is None:
            plan = Plan(tuple(self._index.match(topic)))
            self._planned_sinks += len(plan.sinks)
            if len(self._plans) >= self._max_plans or self._planned_sinks > self._max_planned_sinks:
                self._retire(list(self._plans))
            self._plans[topic] = plan
        return plan

    def overlapping(self, pattern: str) -> Iterator[T]:
        """The sinks of all patterns that some topic of this one matches too, in no order; change nothing meanwhile."""
        return self._index.overlapping(pattern)

    def _retire_matching(self, pattern: str) -> None:
        if has_wildcard(pattern):
            self._retire(list(filter(matcher(pattern), self._plans)))
        elif pattern in self._plans:
            self._retire([pattern])

    def _retire(self, topics: list[str]) -> None:
        for topic in topics:
            plan = self._plans.pop(topic)
            plan.stale = True
            self._planned_sinks -= len(plan.sinks)
