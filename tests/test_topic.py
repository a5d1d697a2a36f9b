"""The grammar of topics and patterns, against its definition code point by code point."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.errors import InvalidTopic
from sockbus.topic import (
    MAX_TOKENS,
    MAX_TOPIC_BYTES,
    check_pattern,
    check_topic,
    has_wildcard,
    is_reserved,
    matcher,
    matches,
    overlaps,
    parse_pattern,
    parse_topic,
)

from .topics import patterns, topics

TOPICS = [
    "a",
    "sensors.kitchen.temp",
    "$",
    "$SYS.status",
    "a.$b",
    "küche.温度.🌡",
    "a-b_c/d:e",
    "zero\u200bwidth",  # Cf is allowed, see the module's docstring
    "क्\u200dष",
    "\ufeffa",
    "x" * MAX_TOPIC_BYTES,
    "é" * 127 + "x",
    ".".join(["a"] * MAX_TOKENS),
]
PATTERNS = ["*", ">", "a.*", "*.b", "a.*.b", "a.>", "*.>", "*.*", "$SYS.>", ".".join(["*"] * 31 + [">"])]

BAD_ANYWHERE = [
    ("", "is empty"),
    (".", "empty token, number 1"),
    (".a", "empty token, number 1"),
    ("a.", "empty token, number 2"),
    ("a..b", "empty token, number 2"),
    ("a b", "U+0020"),
    ("a\n", "U+000A"),
    ("a\x00b", "U+0000"),
    ("a\x7f", "U+007F"),
    ("a\x85", "U+0085"),
    ("a\xa0b", "U+00A0"),
    ("a\u2028b", "U+2028"),
    ("a\u3000", "U+3000"),
    ("a\ud800", "U+D800"),
    ("x" * (MAX_TOPIC_BYTES + 1), "takes 256 bytes"),
    ("é" * 128, "takes 256 bytes"),
    (".".join(["a"] * (MAX_TOKENS + 1)), "has 33 tokens"),
    ("." * 100_000, "takes 100000 bytes"),
]
BAD_TOPICS = [*BAD_ANYWHERE, *((pattern, "wildcard") for pattern in PATTERNS), ("a.b*c", "wildcard")]
BAD_PATTERNS = [
    *BAD_ANYWHERE,
    ("a*", "inside the token 'a*'"),
    ("a.**", "inside the token '**'"),
    ("a.b>", "inside the token 'b>'"),
    (">>", "inside the token '>>'"),
    (">.a", "'>' before its end"),
    ("a.>.b", "'>' before its end"),
    ("*..>", "empty token"),
]
NOT_STR: list[Any] = [None, 7, b"a", ["a"], object()]


def is_token_character(character: str) -> bool:
    """The definition in docs/wire.md, asked of Python's Unicode tables."""
    return not (character.isspace() or unicodedata.category(character) in ("Cc", "Cs") or character in (".", "*", ">"))


def is_topic(text: str) -> bool:
    tokens = text.split(".")
    valid = all(token and all(map(is_token_character, token)) for token in tokens)
    return valid and len(tokens) <= MAX_TOKENS and len(text.encode()) <= MAX_TOPIC_BYTES


def test_limits_are_those_of_the_specification() -> None:
    assert (MAX_TOPIC_BYTES, MAX_TOKENS) == (255, 32)


@pytest.mark.parametrize("topic", TOPICS)
def test_valid_topic_goes_out_as_utf8_and_comes_back(topic: str) -> None:
    assert check_topic(topic) == topic.encode()
    assert parse_topic(topic.encode()) == topic


@pytest.mark.parametrize("pattern", [*TOPICS, *PATTERNS])
def test_valid_pattern_goes_out_as_utf8_and_comes_back(pattern: str) -> None:
    assert check_pattern(pattern) == pattern.encode()
    assert parse_pattern(pattern.encode()) == pattern


@pytest.mark.parametrize(("text", "cause"), BAD_TOPICS)
def test_bad_topic_is_refused_with_its_cause_in_one_line(text: str, cause: str) -> None:
    with pytest.raises(InvalidTopic) as caught:
        check_topic(text)
    assert cause in str(caught.value)
    assert_is_one_short_sentence(str(caught.value), "the topic '")


@pytest.mark.parametrize(("text", "cause"), BAD_PATTERNS)
def test_bad_pattern_is_refused_with_its_cause_in_one_line(text: str, cause: str) -> None:
    with pytest.raises(InvalidTopic) as caught:
        check_pattern(text)
    assert cause in str(caught.value)
    assert_is_one_short_sentence(str(caught.value), "the pattern '")


@pytest.mark.parametrize(("text", "cause"), [pair for pair in BAD_TOPICS if "\ud800" not in pair[0]])
def test_bad_topic_off_the_wire_is_refused_with_the_same_cause(text: str, cause: str) -> None:
    with pytest.raises(InvalidTopic) as caught:
        parse_topic(text.encode())
    assert cause in str(caught.value)
    assert_is_one_short_sentence(str(caught.value), "the topic '")


@pytest.mark.parametrize("raw", [b"\xff", b"a.\xc3", b"\xed\xa0\x80", b"\xc0\xae", b"\xff" * 100_000])
def test_bytes_that_are_not_utf8_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidTopic, match="is not UTF-8 at byte") as in_topic:
        parse_topic(raw)
    with pytest.raises(InvalidTopic, match="is not UTF-8 at byte") as in_pattern:
        parse_pattern(raw)
    assert_is_one_short_sentence(str(in_topic.value), "the topic b'")
    assert_is_one_short_sentence(str(in_pattern.value), "the pattern b'")


@pytest.mark.parametrize("given", NOT_STR, ids=lambda value: type(value).__name__)
def test_what_is_no_str_is_refused_by_its_type(given: Any) -> None:
    with pytest.raises(InvalidTopic, match=f"is of type {type(given).__name__}; give a str"):
        check_topic(given)
    with pytest.raises(InvalidTopic, match=f"is of type {type(given).__name__}; give a str"):
        check_pattern(given)


def test_foreign_repr_with_lines_makes_one_line() -> None:
    class Verse:
        def __repr__(self) -> str:
            return "two\nlines"

    given: Any = Verse()
    with pytest.raises(InvalidTopic) as caught:
        check_topic(given)
    assert str(caught.value) == "the topic two lines is of type Verse; give a str, such as 'sensors.kitchen'"


def test_every_code_point_is_allowed_exactly_as_defined() -> None:
    def passes(character: str) -> bool:
        try:
            check_topic(character)
        except InvalidTopic:
            return False
        return True

    characters = map(chr, range(sys.maxunicode + 1))
    wrong = [ascii(each) for each in characters if passes(each) is not is_token_character(each)]
    assert wrong == []


@given(st.text(st.sampled_from("ab.*> é\u2028"), max_size=8) | st.text(st.characters(codec="utf-8")))
@settings(deadline=None)
def test_check_of_any_text_agrees_with_the_definition(text: str) -> None:
    if is_topic(text):
        assert check_topic(text) == check_pattern(text) == text.encode()
    else:
        with pytest.raises(InvalidTopic):
            check_topic(text)


@given(st.binary(max_size=300) | st.text(st.sampled_from("ab.*>")).map(str.encode))
@settings(deadline=None)
def test_any_bytes_parse_to_what_encodes_back_or_are_refused(raw: bytes) -> None:
    for parse, check in ((parse_topic, check_topic), (parse_pattern, check_pattern)):
        try:
            text = parse(raw)
        except InvalidTopic as error:
            sentence = str(error)
        else:
            assert check(text) == raw
            continue
        assert len(sentence.splitlines()) == 1


@pytest.mark.parametrize(
    ("topic", "reserved"), [("$SYS.status", True), ("$", True), ("$.>", True), ("a.$", False), ("a", False)]
)
def test_dollar_in_front_reserves(topic: str, reserved: bool) -> None:
    assert is_reserved(topic) is reserved


@pytest.mark.parametrize(
    ("pattern", "wild"), [("a.b", False), ("*", True), (">", True), ("a.*.b", True), ("a.>", True)]
)
def test_wildcard_is_seen(pattern: str, wild: bool) -> None:
    assert has_wildcard(pattern) is wild


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a", ["a"], ["b", "a.a", "A"]),
        ("a.b", ["a.b"], ["a", "b", "a.b.c", "a.c"]),
        ("*", ["a", "é"], ["a.b", "$", "$SYS"]),
        (">", ["a", "a.b", "a.b.c"], ["$", "$SYS.status"]),
        ("a.*", ["a.b", "a.$b"], ["a", "a.b.c", "b.b"]),
        ("*.b", ["a.b"], ["b", "a.b.b", "$a.b"]),
        ("a.*.c", ["a.b.c", "a.*.c"], ["a.c", "a.b.b.c"]),
        ("a.>", ["a.b", "a.b.c"], ["a", "b.c"]),
        ("*.>", ["a.b", "a.b.c"], ["a", "$SYS.status"]),
        ("*.*.>", ["a.b.c"], ["a.b"]),
        ("$SYS.*", ["$SYS.status"], ["$SYS", "$SYS.a.b", "SYS.a"]),
        ("$SYS.>", ["$SYS.status", "$SYS.a.b"], ["$SYS"]),
        ("a+.(b|c)", ["a+.(b|c)"], ["aa.b"]),  # nothing but the wildcards is special
    ],
)
def test_pattern_matches_these_and_not_those(pattern: str, matching: list[str], others: list[str]) -> None:
    matched = matcher(pattern)
    assert [topic for topic in matching + others if matches(pattern, topic)] == matching
    assert [topic for topic in matching + others if matched(topic)] == matching


@given(patterns, topics)
@settings(deadline=None)
def test_matcher_agrees_with_matches(pattern: str, topic: str) -> None:
    assert bool(matcher(pattern)(topic)) is matches(pattern, topic)


@given(patterns, topics)
@settings(deadline=None)
def test_pattern_without_wildcard_matches_only_itself(pattern: str, topic: str) -> None:
    if not has_wildcard(pattern):
        assert matches(pattern, topic) is (pattern == topic)
    assert matches(topic, topic)


def assert_is_one_short_sentence(text: str, start: str) -> None:
    assert text.startswith(start)
    assert "; " in text  # the remedy
    assert len(text.splitlines()) == 1
    assert len(text) < 250


def common_topic(pattern: str, other: str) -> str:
    """A topic that two patterns match, if any does: each wildcard as the other pattern has it there."""
    ours, theirs = pattern.split("."), other.split(".")
    tokens = []
    for index in range(max(len(ours), len(theirs))):
        here = [each[min(index, len(each) - 1)] for each in (ours, theirs) if index < len(each) or each[-1] == ">"]
        tokens.append(next((token for token in here if token not in ("*", ">")), "w"))
    return ".".join(tokens)


@given(patterns, patterns)
@settings(max_examples=1000)
def test_patterns_overlap_where_a_topic_matches_both(pattern: str, other: str) -> None:
    found = common_topic(pattern, other)
    assert overlaps(pattern, other) == overlaps(other, pattern) == (matches(pattern, found) and matches(other, found))


@given(patterns, patterns, topics)
@settings(max_examples=1000)
def test_patterns_that_match_one_topic_overlap(pattern: str, other: str, topic: str) -> None:
    assert overlaps(pattern, topic) == matches(pattern, topic)
    if matches(pattern, topic) and matches(other, topic):
        assert overlaps(pattern, other)
