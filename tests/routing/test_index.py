"""The trie, against the naive matcher."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.routing.index import Index
from sockbus.topic import MAX_TOKENS, matches, overlaps

from ..topics import patterns, topics


def filled(*pairs: tuple[str, int]) -> Index[int]:
    index: Index[int] = Index()
    for pattern, value in pairs:
        index.add(pattern, value)
    return index


def children_of(index: Index[int]) -> dict[str, Any]:
    return index._root.children


class CountingDict(dict[str, Any]):
    """Children of a node that remember how often a match asked for a token."""

    def __init__(self, children: dict[str, Any]) -> None:
        super().__init__(children)
        self.asked: list[str] = []

    def get(self, token: str, default: Any = None) -> Any:
        self.asked.append(token)
        return super().get(token, default)


def count_lookups(index: Index[int]) -> list[CountingDict]:
    """Make every node count, and return the counters."""
    counters: list[CountingDict] = []
    nodes: list[Any] = [index._root]
    while nodes:
        node = nodes.pop()
        node.children = CountingDict(node.children)
        counters.append(node.children)
        nodes += node.children.values()
    return counters


@given(st.lists(patterns, max_size=30), st.lists(topics, min_size=1, max_size=5), st.data())
@settings(deadline=None)
def test_match_is_what_the_naive_matcher_finds_in_order(
    given_patterns: list[str], given_topics: list[str], data: st.DataObject
) -> None:
    standing = list(enumerate(given_patterns))
    index = filled(*((pattern, value) for value, pattern in standing))
    for value, pattern in data.draw(st.lists(st.sampled_from(standing), unique=True) if standing else st.just([])):
        index.remove(pattern, value)
        standing.remove((value, pattern))
    assert len(index) == len(standing)
    for topic in given_topics:
        assert index.match(topic) == [value for value, pattern in standing if matches(pattern, topic)]
    for value, pattern in standing:
        index.remove(pattern, value)
    assert len(index) == 0
    assert children_of(index) == {}


def test_value_under_two_patterns_is_found_once_for_each() -> None:
    index = filled(("a.*", 1), (">", 2), ("*.b", 1))
    assert index.match("a.b") == [1, 2, 1]
    index.remove("a.*", 1)
    assert index.match("a.b") == [2, 1]


def test_value_that_returns_stands_last() -> None:
    index = filled(("a", 1), ("a", 2))
    index.remove("a", 1)
    index.add("a", 1)
    assert index.match("a") == [2, 1]


def test_leading_wildcard_does_not_match_the_brokers_topics() -> None:
    index = filled((">", 1), ("*", 2), ("*.status", 3), ("*.>", 4), ("$SYS.*", 5), ("$SYS.>", 6), ("$SYS", 7))
    assert index.match("$SYS.status") == [5, 6]
    assert index.match("$SYS") == [7]
    assert index.match("SYS.status") == [1, 3, 4]


def test_value_that_is_there_is_not_added_again() -> None:
    index = filled(("a.*", 1))
    with pytest.raises(ValueError, match=r"1 is already under 'a\.\*'"):
        index.add("a.*", 1)
    assert index.match("a.b") == [1]
    assert len(index) == 1


@pytest.mark.parametrize(("pattern", "value"), [("a", 2), ("b", 1), ("a.b", 1), ("a.b.c.d", 1), ("*", 1), (">", 1)])
def test_value_that_is_not_there_is_not_removed(pattern: str, value: int) -> None:
    index = filled(("a", 1), ("a.b.c", 3))
    with pytest.raises(KeyError, match="is not under"):
        index.remove(pattern, value)
    assert len(index) == 2
    assert index.match("a") == [1]
    assert index.match("a.b.c") == [3]


def test_empty_branch_is_pruned_up_to_the_next_value() -> None:
    index = filled(("a.b", 1), ("a.b.c.d", 2), ("a.b.*.>", 3))
    index.remove("a.b.c.d", 2)
    index.remove("a.b.*.>", 3)
    assert children_of(index)["a"].children["b"].children == {}
    assert index.match("a.b") == [1]
    index.remove("a.b", 1)
    assert children_of(index) == {}


def test_match_asks_each_node_at_most_once_whatever_the_wildcards() -> None:
    # Each token is a wildcard as likely as not: a search that went back and tried again would do so at each.
    rng = random.Random(1)
    all_patterns = {".".join([*rng.choices("a*", k=MAX_TOKENS - 1), last]) for last in "a*>b" for _ in range(100)}
    index = filled(*((pattern, value) for value, pattern in enumerate(sorted(all_patterns))))
    counters = count_lookups(index)
    topic = ".".join(["a"] * MAX_TOKENS)
    assert len(index.match(topic)) == sum(matches(pattern, topic) for pattern in all_patterns)
    assert len(index.match(topic)) > 200
    assert max(counter.asked.count("a") for counter in counters) == 2  # once in each of the two matches
    assert max(len(counter.asked) for counter in counters) <= 2 * 3


@given(st.lists(patterns, max_size=30), patterns | topics)
@settings(deadline=None)
def test_overlapping_is_what_the_naive_comparison_finds(given_patterns: list[str], pattern: str) -> None:
    index = filled(*((each, value) for value, each in enumerate(given_patterns)))
    wanted = [value for value, each in enumerate(given_patterns) if overlaps(each, pattern)]
    assert sorted(index.overlapping(pattern)) == wanted
