"""Strategies for topics and patterns that often match one another: few tokens, from a small alphabet."""

from __future__ import annotations

from hypothesis import strategies as st

_words = st.sampled_from(["a", "b", "é", "a-b", "$", "$SYS", "a$"])

topics = st.lists(_words, min_size=1, max_size=4).map(".".join)
patterns = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.one_of(_words, st.just("*")), min_size=1, max_size=4),
    st.sampled_from([(), (), (">",)]),
) | st.just(">")
