"""What a broker can be told, and what it refuses."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sockbus.address import Address
from sockbus.broker.config import LIMITS, Config, ConfigError, Limits, load, raise_open_files, settle_total_fds


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_can_be_set_within_its_range_only(name: str) -> None:
    limit = LIMITS[name]
    limits = Limits()
    for value in (limit.least, limit.least + 1, limit.most - 1, limit.most, limit.default):
        limits.set(name, value)
        assert getattr(limits, name) == value
    for value in (limit.least - 1, limit.most + 1, True, 1.0, "1", None):
        with pytest.raises(ConfigError, match=name):
            limits.set(name, value)  # type: ignore[arg-type]  # some come from a file
        assert getattr(limits, name) == limit.default


@pytest.mark.parametrize("name", LIMITS)
def test_every_default_is_in_its_range_and_has_a_meaning(name: str) -> None:
    limit = LIMITS[name]
    assert limit.least <= limit.default <= limit.most
    assert limit.meaning
    assert Limits().as_dict()[name] == limit.default


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("message_bytes=1000", "message_bytes", 1000),
        ("message_bytes = 1000", "message_bytes", 1000),
        ("connections_per_uid=1", "connections_per_uid", 1),
    ],
)
def test_limit_is_parsed(text: str, name: str, value: int) -> None:
    limits = Limits()
    limits.parse(text)
    assert getattr(limits, name) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "=", "message_bytes", "message_bytes=", "message_bytes=ten", "message_bytes=-1", "message_bytes=1e3",
        "message_bytes=1.0", "message_bytes=0x10", "message_bytes=1=2", "nonsense=1", "=1", "set=1", "parse=1",
        "__class__=1", "message_bytes=99999999999999999999999", "message_bytes=²",
    ],
)  # fmt: skip
def test_what_is_no_limit_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits().parse(text)
    assert "\n" not in str(caught.value)


def test_huge_number_is_refused_and_not_computed() -> None:
    with pytest.raises(ConfigError):
        Limits().parse("message_bytes=" + "9" * 5000)


@pytest.mark.parametrize(
    ("address", "exposed"),
    [
        ("tcp:127.0.0.1:0", False),
        ("tcp:127.8.8.8:1", False),
        ("tcp:localhost:1", False),
        ("tcp:[::1]:1", False),
        ("tcp:0.0.0.0:1", True),
        ("tcp:[::]:1", True),
        ("tcp:192.0.2.1:1", True),
        ("tcp:example.org:1", True),
        ("unix:/tmp/x", False),
    ],
)
def test_address_that_others_reach_has_to_be_asked_for(address: str, exposed: bool) -> None:
    config = Config([Address.parse(address)])
    if exposed:
        with pytest.raises(ConfigError, match="--insecure-tcp"):
            config.check()
    else:
        config.check()
    Config([Address.parse(address)], insecure_tcp=True).check()


def test_file_says_all_that_the_command_line_can(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    path.write_text(
        'addresses = ["unix:/tmp/x", "tcp:127.0.0.1:4"]\ninsecure_tcp = true\n[limits]\nmessage_bytes = 5\n'
    )
    config = load(str(path))
    assert [str(address) for address in config.addresses] == ["unix:/tmp/x", "tcp:127.0.0.1:4"]
    assert config.insecure_tcp
    assert config.limits.as_dict() == {**Limits().as_dict(), "message_bytes": 5}


@pytest.mark.parametrize(
    "content",
    [
        b"addresses = 'unix:/tmp/x'", b"addresses = [1]", b"insecure_tcp = 1", b"limits = 5", b"[limits]\nnonsense = 1",
        b"[limits]\nmessage_bytes = -1", b"[limits]\nmessage_bytes = '5'", b"[limits]\nmessage_bytes = true",
        b"[limits]\nmessage_bytes = 1.5", b"adresses = []", b"[server]\n", b"not toml", b"\xff\xfe", b"a" * 100,
    ],
)  # fmt: skip
def test_file_that_says_something_else_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broker.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load(str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError):
        load(str(tmp_path))


class OpenFiles(NamedTuple):
    """What getrlimit(2) says of RLIMIT_NOFILE."""

    soft: int
    hard: int


@pytest.fixture
def open_files() -> Iterator[OpenFiles]:
    """The limit of open files, the soft one halved for the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft // 2, hard))
    yield OpenFiles(soft // 2, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_soft_limit_of_open_files_is_raised_to_the_hard_one(open_files: OpenFiles) -> None:
    raise_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (open_files.hard, open_files.hard)


def test_quarter_of_the_open_files_is_for_messages_and_the_limit_stays(open_files: OpenFiles) -> None:
    limits = Limits()
    settle_total_fds(limits)
    assert limits.total_fds == open_files.soft // 4
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == open_files


def test_chosen_total_of_fds_stays() -> None:
    limits = Limits(total_fds=5)
    settle_total_fds(limits)
    assert limits.total_fds == 5
