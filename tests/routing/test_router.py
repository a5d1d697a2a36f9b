"""Plans and their staleness, against the naive matcher."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sockbus.routing.router import MAX_PLANNED_SINKS, MAX_PLANS, Plan, Router
from sockbus.topic import matches

from ..topics import patterns, topics


class RouterMachine(RuleBasedStateMachine):
    """Any sequence of changes and plans. Every plan ever made is held on to, as links do."""

    def __init__(self) -> None:
        super().__init__()
        self.router: Router[int] = Router()
        self.standing: list[tuple[str, int]] = []
        self.held: list[tuple[str, Plan[int]]] = []
        self.next_sink = 0

    @rule(pattern=patterns)
    def add(self, pattern: str) -> None:
        fresh = self.fresh()
        self.router.add(pattern, self.next_sink)
        self.standing.append((pattern, self.next_sink))
        self.next_sink += 1
        self.assert_only_these_went_stale(fresh, [pattern])

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        fresh = self.fresh()
        pair = data.draw(st.sampled_from(self.standing))
        self.standing.remove(pair)
        self.router.remove(*pair)
        self.assert_only_these_went_stale(fresh, [pair[0]])

    @rule(data=st.data())
    def remove_all(self, data: st.DataObject) -> None:
        fresh = self.fresh()
        pairs = [pair for pair in self.standing if data.draw(st.booleans())]
        self.standing = [pair for pair in self.standing if pair not in pairs]
        self.router.remove_all(iter(pairs))
        self.assert_only_these_went_stale(fresh, [pattern for pattern, _ in pairs])

    @rule(topic=topics)
    def plan(self, topic: str) -> None:
        plan = self.router.plan(topic)
        assert not plan.stale
        assert self.router.plan(topic) is plan
        self.held.append((topic, plan))

    @invariant()
    def fresh_plans_are_what_the_naive_matcher_finds(self) -> None:
        for topic, plan in self.fresh():
            assert plan.sinks == tuple(sink for pattern, sink in self.standing if matches(pattern, topic))

    def fresh(self) -> list[tuple[str, Plan[int]]]:
        return [(topic, plan) for topic, plan in self.held if not plan.stale]

    def assert_only_these_went_stale(self, fresh: list[tuple[str, Plan[int]]], changed: list[str]) -> None:
        for topic, plan in fresh:
            assert plan.stale is any(matches(pattern, topic) for pattern in changed)


TestRouterMachine = RouterMachine.TestCase
TestRouterMachine.settings = settings(deadline=None, stateful_step_count=40)


def test_limits_are_these() -> None:
    assert (MAX_PLANS, MAX_PLANNED_SINKS) == (8192, 1 << 20)


@pytest.mark.parametrize(("planned", "stale"), [(2, 0), (3, 0), (4, 3)])
def test_full_cache_is_emptied_and_its_plans_are_stale(planned: int, stale: int) -> None:
    router: Router[int] = Router(max_plans=3)
    plans = [router.plan(f"t{number}") for number in range(planned)]
    assert [plan.stale for plan in plans] == [True] * stale + [False] * (planned - stale)
    assert router.plan(f"t{planned - 1}") is plans[-1]


@pytest.mark.parametrize(("planned", "stale"), [(2, 0), (3, 0), (4, 3)])
def test_cache_is_emptied_when_its_plans_have_too_many_sinks(planned: int, stale: int) -> None:
    router: Router[int] = Router(max_planned_sinks=6)
    router.add(">", 1)
    router.add("*", 2)
    plans = [router.plan(f"t{number}") for number in range(planned)]
    assert [plan.stale for plan in plans] == [True] * stale + [False] * (planned - stale)
    assert [plan.sinks for plan in plans] == [(1, 2)] * planned


def test_plan_with_more_sinks_than_the_cache_may_hold_is_made_all_the_same() -> None:
    router: Router[int] = Router(max_planned_sinks=1)
    router.add("a", 1)
    router.add("a", 2)
    plan = router.plan("a")
    assert plan.sinks == (1, 2)
    assert not plan.stale
    assert router.plan("a") is plan
    assert router.plan("b").sinks == ()
    assert plan.stale


def test_sinks_of_retired_plans_no_longer_count() -> None:
    router: Router[int] = Router(max_planned_sinks=2)
    router.add("a", 1)
    for number in range(2, 7):
        kept, plan = router.plan("b"), router.plan("a")
        router.remove("a", number - 1)
        router.add("a", number)
        assert plan.stale
        assert not kept.stale


def test_plan_in_use_keeps_its_sinks_when_it_goes_stale() -> None:
    router: Router[int] = Router()
    router.add("a", 1)
    plan = router.plan("a")
    router.remove("a", 1)
    assert plan.stale
    assert plan.sinks == (1,)
    assert router.plan("a").sinks == ()


def test_refused_change_leaves_plans_fresh() -> None:
    router: Router[int] = Router()
    router.add("a", 1)
    plan = router.plan("a")
    with pytest.raises(ValueError, match="already under"):
        router.add("a", 1)
    with pytest.raises(KeyError, match="is not under"):
        router.remove("a", 2)
    assert not plan.stale


def test_sink_under_a_second_pattern_keeps_delivering_when_the_first_goes() -> None:
    router: Router[int] = Router()
    router.add("a.*", 1)
    router.add("*.b", 1)
    assert router.plan("a.b").sinks == (1, 1)
    router.remove_all([("a.*", 1)])
    assert router.plan("a.b").sinks == (1,)
