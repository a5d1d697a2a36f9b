"""The grammar of the command line, without a process."""

from __future__ import annotations

import shlex

import pytest

from sockbus.cli.outcome import UsageError
from sockbus.cli.parser import parse_arguments
from sockbus.cli.verbs import VERBS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pub", "t"], {"payload": None, "fd": [], "header": [], "receipt": False, "raw": False, "address": None}),
        (["pub", "t", "-5"], {"payload": "-5"}),
        (["pub", "t", "-"], {"payload": "-"}),
        (["pub", "t", "--", "-x"], {"payload": "-x"}),
        (["pub", "t", "--receipt", "hello"], {"payload": "hello", "receipt": True}),
        (["pub", "--fd", "a", "t", "--fd", "b", "hello"], {"payload": "hello", "fd": ["a", "b"]}),
        (["pub", "t", "--header", "n=1", "--header", "s=x=y"], {"header": [("n", 1), ("s", "x=y")]}),
        (["sub", "a.>"], {"pattern": "a.>", "count": None, "timeout": None, "fds": "reject", "json": False}),
        (["sub", "a", "--timeout", "0.5", "--count", "3"], {"timeout": 0.5, "count": 3}),
        (["sub", "a", "--fds", "strip", "--group", "g"], {"fds": "strip", "group": "g"}),
        (["request", "$SYS.status"], {"topic": "$SYS.status", "timeout": 5.0}),
        (["reply", "a", "--echo"], {"echo": True, "exec": False, "words": []}),
        (["reply", "a", "--exec", "sort", "-r", "--help"], {"exec": True, "words": ["sort", "-r", "--help"]}),
        (["reply", "--raw", "a", "--exec", "grep", "--", "--exec"], {"words": ["grep", "--", "--exec"], "raw": True}),
        (["broker"], {"addresses": [], "limit": [], "ready_fd": None, "config": None, "insecure_tcp": False}),
        (["broker", "--limit", "a=1", "--limit", "b=2"], {"limit": ["a=1", "b=2"]}),
        (["broker", "--ready-fd", "3", "--lifeline-fd", "4"], {"ready_fd": 3, "lifeline_fd": 4}),
        (["run", "cmd"], {"limit": [], "words": ["cmd"], "address": None}),
        (["run", "--", "cmd", "-x", "--"], {"words": ["cmd", "-x", "--"]}),
        (["run", "cmd", "--", "--help", "--address", "a"], {"words": ["cmd", "--", "--help", "--address", "a"]}),
        (["run", "--limit", "a=1", "--limit=b=2", "cmd", "--limit", "c=3"], {"limit": ["a=1", "b=2"]}),
        (["run", "--limit", "a=1", "--", "--help"], {"limit": ["a=1"], "words": ["--help"]}),
        (["run", "--", "--", "cmd"], {"words": ["--", "cmd"]}),
        (["run", "reply", "a", "--exec", "cmd"], {"words": ["reply", "a", "--exec", "cmd"]}),
    ],
)
def test_arguments_are_understood(arguments: list[str], expected: dict[str, object]) -> None:
    namespace = parse_arguments(arguments)
    assert namespace.verb == arguments[0]
    assert {name: getattr(namespace, name) for name in expected} == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--address", "unix:/x", "status"],
        ["--address=unix:/x", "status"],
        ["status", "--address", "unix:/x"],
        ["--address", "unix:/y", "status", "--address", "unix:/x"],
    ],
)
def test_address_may_stand_before_or_behind_the_verb(arguments: list[str]) -> None:
    assert str(parse_arguments(arguments).address) == "unix:/x"


def test_options_may_stand_between_addresses() -> None:
    namespace = parse_arguments(["broker", "unix:/a", "--limit", "link_fds=9", "tcp:localhost:0"])
    assert [str(address) for address in namespace.addresses] == ["unix:/a", "tcp:localhost:0"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "VERB"),
        (["publish"], "publish"),
        (["pub"], "TOPIC"),
        (["pub", "a b"], "white space"),
        (["pub", "a.*"], "wildcard"),
        (["pub", "a", "b", "c"], "c"),
        (["pub", "a", "--retain=1"], "--retain"),
        (["pub", "a", "--rec"], "--rec"),
        (["pub", "a", "--header", "x"], "K=V"),
        (["pub", "a", "--header", "=x"], "K=V"),
        (["pub", "a", "--header", "x=" + 3000 * "["], "nested"),
        (["pub", "a", "--address", "nowhere"], "nowhere"),
        (["--address", "nowhere", "pub", "a"], "nowhere"),
        (["--address"], "--address"),
        (["sub", "a.>.b"], "'>'"),
        (["sub", "a", "--count", "0"], "--count"),
        (["sub", "a", "--count", "-1"], "--count"),
        (["sub", "a", "--count", "²"], "--count"),
        (["sub", "a", "--count", "9" * 5000], "--count"),
        (["sub", "a", "--timeout", "nan"], "--timeout"),
        (["sub", "a", "--timeout", "inf"], "--timeout"),
        (["sub", "a", "--timeout", "-1"], "--timeout"),
        (["sub", "a", "--timeout", "soon"], "--timeout"),
        (["sub", "a", "--group", ""], "--group"),
        (["sub", "a", "--group", "g" * 256], "--group"),
        (["sub", "a", "--group", "\udc80"], "--group"),
        (["sub", "a", "--fds", "keep"], "keep"),
        (["sub", "a", "--json", "--raw"], "not allowed"),
        (["request", "a", "--timeout", "0"], "--timeout"),
        (["reply", "a"], "--exec"),
        (["reply", "a", "--echo", "--exec", "cat"], "not allowed"),
        (["status", "x"], "x"),
        (["broker", "udp:1"], "udp:1"),
        (["broker", "--ready-fd", "x"], "--ready-fd"),
        (["broker", "--ready-fd", "1"], "--ready-fd"),
        (["broker", "--lifeline-fd", "2"], "--lifeline-fd"),
        (["run"], "COMMAND"),
        (["run", "--"], "COMMAND"),
        (["run", "--", ""], "COMMAND"),
        (["run", "--limit", "a=1"], "COMMAND"),
        (["run", "--limit"], "--limit"),
        (["run", "--json", "cmd"], "--json"),
        (["run", "--address", "unix:/x", "cmd"], "--address"),
        (["--address", "unix:/x", "run", "cmd"], "--address"),
    ],
)
def test_what_does_not_hold_is_a_usage_error_that_names_it(arguments: list[str], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(arguments)
    assert named in str(caught.value)


def test_every_verb_of_the_contract_is_there() -> None:
    assert list(VERBS) == ["broker", "run", "pub", "sub", "request", "reply", "status"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_ends_with_an_example_of_it(verb: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments([verb, "--help"])
    assert ended.value.code == 0
    text = capfdbinary.readouterr().out.decode()
    example = text.rstrip().rpartition("example:\n")[2]
    assert example.strip().startswith(f"sockbus {verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_example_of_a_verb_is_one_that_it_takes(verb: str) -> None:
    assert parse_arguments(shlex.split(VERBS[verb].example)[1:]).verb == verb
