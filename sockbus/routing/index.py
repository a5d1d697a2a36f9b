"""A trie from patterns to values.

The index owns which value stands under which pattern and in which order they came; it gives the values of
all patterns that match a topic. It checks no grammar: ``sockbus.topic`` has checked what comes here.

Bound: a match goes down level by level, without recursion, and looks at each node once at most. Level *k*
has at most 2**k nodes to look at, and never more than there are distinct prefixes of *k* tokens among the
patterns; so the whole costs no more than one look at every node, however many wildcards there are.

Invariant: every node but the root has a value at or beneath it; what is removed leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from operator import itemgetter
from typing import Generic, TypeVar, final

__all__ = ["Index"]

T = TypeVar("T", bound=Hashable)

_rank = itemgetter(1)


@final
class Index(Generic[T]):
    """Values under patterns. A value may stand under several patterns, once under each."""

    __slots__ = ("_next_rank", "_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._next_rank = 0
        self._size = 0

    def __len__(self) -> int:
        """How many values there are, counted once for each pattern."""
        return self._size

    def add(self, pattern: str, value: T) -> None:
        """Put a value under a pattern, behind all others. Raises ValueError if it is there already."""
        node = self._root
        for token in pattern.split("."):
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = _Node()
            node = child
        if value in node.ranks:
            raise ValueError(f"{value!r} is already under {pattern!r}; remove it first")
        node.ranks[value] = self._next_rank
        self._next_rank += 1
        self._size += 1

    def remove(self, pattern: str, value: T) -> None:
        """Take a value from under a pattern. Raises KeyError, and changes nothing, if it is not there."""
        node: _Node[T] | None = self._root
        path: list[tuple[_Node[T], str]] = []
        for token in pattern.split("."):
            if node is None:
                break
            path.append((node, token))
            node = node.children.get(token)
        if node is None or value not in node.ranks:
            raise KeyError(f"{value!r} is not under {pattern!r}")
        del node.ranks[value]
        self._size -= 1
        for parent, token in reversed(path):
            child = parent.children[token]
            if child.children or child.ranks:
                break
            del parent.children[token]

    def match(self, topic: str) -> list[T]:
        """The values of all patterns that match, in the order in which they were added."""
        found: list[tuple[T, int]] = []
        level = [self._root]
        wild = not topic.startswith("$")  # a leading wildcard does not match the broker's own topics
        for token in topic.split("."):
            below: list[_Node[T]] = []
            for node in level:
                get = node.children.get
                if (child := get(token)) is not None:
                    below.append(child)
                if wild:
                    if (child := get("*")) is not None:
                        below.append(child)
                    if (child := get(">")) is not None:
                        found += child.ranks.items()
            level = below
            wild = True
        for node in level:
            found += node.ranks.items()
        found.sort(key=_rank)
        return [value for value, _ in found]

    def overlapping(self, pattern: str) -> Iterator[T]:
        """The values of all patterns that some topic of this one matches too, in no order; change nothing meanwhile."""
        tokens = pattern.split(".")
        reserved = pattern.startswith("$")
        # Nodes, and how many tokens of the pattern lead there.
        ahead = [(self._root, 0)]
        while ahead:
            node, depth = ahead.pop()
            if depth == len(tokens):
                yield from node.ranks
                continue
            token = tokens[depth]
            children = node.children
            if token in ("*", ">"):
                is_first = node is self._root
                found = [each for each in children.items() if not (is_first and each[0].startswith("$"))]
            else:
                names = (token,) if reserved and not depth else (token, "*", ">")
                found = [(name, children[name]) for name in names if name in children]
            for name, child in found:
                if token == ">":
                    # One token or more: this one, and all that may follow.
                    yield from child.ranks
                    ahead.append((child, depth))
                elif name == ">":
                    yield from child.ranks
                else:
                    ahead.append((child, depth + 1))


class _Node(Generic[T]):
    """The end of one prefix. Wildcards are children like others: no token of a topic is ``*`` or ``>``."""

    __slots__ = ("children", "ranks")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.ranks: dict[T, int] = {}
