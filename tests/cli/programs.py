"""A broker for tests of verbs, and the verbs as they are mostly called."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers import BrokerProcess, Program, command, run


@pytest.fixture(scope="module")
def bus() -> Iterator[BrokerProcess]:
    """One broker for the tests that leave no traces on it."""
    with BrokerProcess() as broker:
        yield broker


def subscriber(bus: BrokerProcess, *arguments: str, address: str | None = None) -> Program:
    """``sockbus sub``, its subscription in force."""
    program = Program(command("sub", *arguments, "--address", address or bus.unix))
    assert program.err.next() == f"subscribed to {arguments[0]}"
    return program


def publish(bus: BrokerProcess, *arguments: str, address: str | None = None, stdin: bytes = b"") -> str:
    """``sockbus pub``, which must succeed; what it printed."""
    done = run("pub", *arguments, "--address", address or bus.unix, stdin=stdin)
    assert (done.code, done.err) == (0, "")
    return done.out
