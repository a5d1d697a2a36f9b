"""Fixtures for tests of clients against a broker that runs: transports, addresses, and a broker of all tests.

The broker runs as a process of its own for the whole session. Each test has topics of its own in it, and leaves it as
it was found: no connection and no file descriptor stays behind, and it has logged nothing.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.brokers import BrokerProcess
from tests.contract.runtime import RUNTIMES
from tests.contract.status import fds_of, settled

__all__ = ["address", "broker_as_found", "common_broker", "limit_tests", "topic", "transport"]

_topics = itertools.count()


def limit_tests(items: Iterable[pytest.Item], directory: Path) -> None:
    """A test of a directory that hangs fails."""
    for item in items:
        if isinstance(item, pytest.Function) and directory in item.path.parents and _is_async(item):
            callspec = getattr(item, "callspec", None)
            name = callspec.params.get("runtime", "trio") if callspec is not None else "trio"
            item.obj = RUNTIMES[name].limited(item.obj)


def _is_async(item: pytest.Function) -> bool:
    return inspect.iscoroutinefunction(item.obj)


@pytest.fixture(params=["seqpacket", "stream", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def common_broker() -> Iterator[BrokerProcess]:
    """One broker for all tests that do it no harm."""
    with BrokerProcess() as broker:
        yield broker
        # On a slow machine a reader that is made to stop may be named.
        named = ("gave no credit back", "took nothing for")
        unwanted = [line for line in broker.log.splitlines() if not any(part in line for part in named)]
        assert unwanted == [], unwanted


@pytest.fixture
def address(common_broker: BrokerProcess, transport: str) -> str:
    """Of the common broker, by the transport of this test."""
    return common_broker.address(transport)


@pytest.fixture
def topic() -> str:
    """One that no other test uses."""
    return f"test{next(_topics)}"


@pytest.fixture(autouse=True)
def broker_as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a descriptor, and so perhaps a connection, in the common broker."""
    if "common_broker" not in request.fixturenames:
        yield
        return
    pid = request.getfixturevalue("common_broker").pid
    before = fds_of(pid)
    yield
    assert settled(lambda: fds_of(pid), before) == before
