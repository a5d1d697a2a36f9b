"""Addresses as text and back, the default, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockbus.address import MAX_PATH_BYTES, Address, default_address
from sockbus.errors import ConnectError

GOOD = [
    ("unix:/run/user/1000/sockbus", Address("unix", path="/run/user/1000/sockbus")),
    ("unix:here", Address("unix", path="here")),
    ("unix:~/bus", Address("unix", path="~/bus")),
    ("unix:/a:b c/é", Address("unix", path="/a:b c/é")),
    ("seqpacket:/tmp/s", Address("seqpacket", path="/tmp/s")),
    ("stream:../s", Address("stream", path="../s")),
    ("tcp:localhost:7000", Address("tcp", host="localhost", port=7000)),
    ("tcp:127.0.0.1:0", Address("tcp", host="127.0.0.1")),
    ("tcp:[::1]:65535", Address("tcp", host="::1", port=65535)),
    ("tcp:[0:0::1]:1", Address("tcp", host="0:0::1", port=1)),
    ("tcp:[fe80::1%eth0]:7000", Address("tcp", host="fe80::1%eth0", port=7000)),
    ("tcp:bücher.example:7000", Address("tcp", host="bücher.example", port=7000)),
]
FORMS = "unix:DIR, seqpacket:PATH, stream:PATH or tcp:HOST:PORT"
BAD = [
    *((text, FORMS) for text in ("", ":", "/run/bus", "localhost:7000", "UNIX:/a", "dgram:/a", "tls:a:1")),
    *((text, f"has no path; use {FORMS}") for text in ("unix:", "seqpacket:", "stream:")),
    *((text, "lacks a host or a port") for text in ("tcp:", "tcp:localhost", "tcp::7000")),
    *(
        (f"tcp:localhost:{port}", "no port from 0 to 65535")
        for port in ("", "65536", "99999999999999999999", "-1", "+1", "07", "1 ", "http", "٣")
    ),
    ("tcp:::1:7000", "put IPv6 in brackets"),
    ("tcp:[::1", "put IPv6 in brackets"),
    ("tcp:[::1]", "no port from 0 to 65535"),
    *((f"tcp:{host}:7000", "no IPv6 address in its brackets") for host in ("[]", "[localhost]", "[::g]")),
    *(
        (f"tcp:{host}:7000", "no name and no IP address")
        for host in ("a b", "[x", "a/b", "a..b", ".", "x" * 64, ".".join(["x" * 50] * 6), "\ud800")
    ),
    ("unix:/a\x00b", "control character U+0000"),
    ("unix:/a\nb", "control character U+000A"),
    ("tcp:a\u2028:7000", "control character U+2028"),
    ("stream:/a\udcff", "cannot be encoded at character 3"),
    (f"unix:{'x' * 10_000}", f"the system's limit is {MAX_PATH_BYTES}"),
]


@pytest.mark.parametrize(("text", "address"), GOOD)
def test_address_parses_and_prints_as_given(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text
    assert Address.parse(text).is_default is False


@pytest.mark.parametrize(("text", "cause"), BAD)
def test_bad_address_is_refused_in_one_line_with_the_cause(text: str, cause: str) -> None:
    with pytest.raises(ConnectError) as caught:
        Address.parse(text)
    sentence = str(caught.value)
    assert cause in sentence
    assert sentence.startswith("the address '")
    assert len(sentence.splitlines()) == 1
    assert len(sentence) < 400


def test_what_is_no_str_is_refused_by_its_type() -> None:
    path: Any = PurePosixPath("/run/bus")
    with pytest.raises(ConnectError, match=r"is of type PurePosixPath; give a str: unix:DIR"):
        Address.parse(path)


@given(
    st.text(st.sampled_from("unixtcpa:[]/.1 0\n\x00é\udcff"), max_size=20)
    | st.builds("tcp:{}:{}".format, st.text(max_size=8), st.text(st.sampled_from("0123456789a"), max_size=6))
    | st.builds("{}:{}".format, st.sampled_from(["unix", "seqpacket", "stream"]), st.text())
)
@settings(deadline=None)
def test_any_text_prints_back_as_given_or_is_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except ConnectError as error:
        printed = str(error)
    else:
        printed = str(address)
        assert printed == text
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize(
    ("scheme", "longest"),
    [("seqpacket", 107), ("stream", 107), ("unix", 97)],  # a directory leaves room for /seqpacket
)
@pytest.mark.parametrize("letter", ["x", "é"])
def test_socket_path_of_107_bytes_is_the_longest(scheme: str, longest: int, letter: str) -> None:
    def path_of(size: int) -> str:
        width = len(letter.encode())
        return "/" * (size % width) + letter * (size // width)

    for size in (longest - 1, longest):
        address = Address.parse(f"{scheme}:{path_of(size)}")
        assert max(len(os.fsencode(road.path)) for road in address.roads()) == 107 - longest + size
    with pytest.raises(ConnectError, match="of 108 bytes, and the system's limit is 107; choose one at least 1 "):
        Address.parse(f"{scheme}:{path_of(longest + 1)}")


@pytest.mark.parametrize(
    ("text", "roads"),
    [
        ("unix:/run/bus", ["seqpacket:/run/bus/seqpacket", "stream:/run/bus/stream"]),
        ("unix:bus/", ["seqpacket:bus/seqpacket", "stream:bus/stream"]),
        ("unix:/", ["seqpacket:/seqpacket", "stream:/stream"]),
        ("seqpacket:/s", ["seqpacket:/s"]),
        ("stream:/s", ["stream:/s"]),
        ("tcp:[::1]:7000", ["tcp:[::1]:7000"]),
    ],
)
def test_directory_has_two_roads_and_all_else_is_its_own(text: str, roads: list[str]) -> None:
    assert [str(road) for road in Address.parse(text).roads()] == roads
    assert all(not road.is_default for road in Address.parse(text).roads())


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("[::1]", True),
        ("[0:0:0:0:0:0:0:1]", True),
        ("128.0.0.1", False),
        ("0.0.0.0", False),
        ("[::]", False),
        ("[::2]", False),
        ("[::ffff:127.0.0.1]", False),
        ("127.1", False),
        ("localhost.example", False),
        ("example.org", False),
    ],
)
def test_loopback_is_what_surely_stays_on_this_machine(host: str, loopback: bool) -> None:
    assert Address.parse(f"tcp:{host}:7000").is_loopback is loopback


@pytest.mark.parametrize("text", ["unix:localhost", "stream:127.0.0.1"])
def test_path_is_no_loopback_host(text: str) -> None:
    assert Address.parse(text).is_loopback is False


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "unix:/tmp/sockbus-1000"),
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, "unix:/run/user/1000/sockbus"),
        ({"XDG_RUNTIME_DIR": "/run/user/1000/"}, "unix:/run/user/1000/sockbus"),
        ({"XDG_RUNTIME_DIR": ""}, "unix:/tmp/sockbus-1000"),
        ({"XDG_RUNTIME_DIR": "run"}, "unix:/tmp/sockbus-1000"),
        ({"XDG_RUNTIME_DIR": "/run/user/1000", "SOCKBUS_ADDRESS": ""}, "unix:/run/user/1000/sockbus"),
    ],
)
def test_default_address_is_known_as_the_default(environ: dict[str, str], text: str) -> None:
    address = default_address(environ, uid=1000)
    assert str(address) == text
    assert address.is_default is True
    assert all(road.is_default for road in address.roads())


def test_uid_of_the_default_address_is_the_effective_one() -> None:
    assert str(default_address({})) == f"unix:/tmp/sockbus-{os.geteuid()}"


def test_chosen_address_wins_and_is_not_the_default() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000", "SOCKBUS_ADDRESS": "unix:/run/user/1000/sockbus"}
    chosen = default_address(environ, uid=1000)
    assert chosen.is_default is False
    assert all(not road.is_default for road in chosen.roads())


@pytest.mark.parametrize(
    ("environ", "origin"),
    [
        ({"SOCKBUS_ADDRESS": "/run/bus"}, r"the address '/run/bus' in \$SOCKBUS_ADDRESS begins with"),
        (
            {"XDG_RUNTIME_DIR": "/" + "x" * 90},
            r"/sockbus' under \$XDG_RUNTIME_DIR gives a socket a path of 109",
        ),
    ],
)
def test_unusable_environment_is_named_and_not_passed_over(environ: dict[str, str], origin: str) -> None:
    with pytest.raises(ConnectError, match=origin):
        default_address(environ, uid=1000)


def test_being_the_default_is_neither_compared_nor_shown() -> None:
    default = default_address({}, uid=7)
    spelt = Address.parse("unix:/tmp/sockbus-7")
    assert default == spelt
    assert hash(default) == hash(spelt)
    assert repr(default) == repr(spelt)


@pytest.mark.parametrize("address", [default_address({}, uid=7), Address.parse("tcp:[::1]:7000")], ids=str)
def test_pickled_address_comes_back_whole(address: Address) -> None:
    copy = pickle.loads(pickle.dumps(address))
    assert copy == address
    assert copy.is_default is address.is_default


def test_address_cannot_be_changed() -> None:
    address: Any = Address.parse("unix:/a")
    with pytest.raises(AttributeError):
        address.path = "/b"
    assert address.path == "/a"
