"""The pytest plugin: fixtures for tests of programs that use the bus. docs/testing.md shows them at work.

pytest imports this module whenever it starts, in every project of an environment, so it imports nothing that costs
anything: the broker, and Trio with it, come with the first test that asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["sockbus_address", "sockbus_broker"]


@pytest.fixture
def sockbus_broker() -> Iterator[Broker]:
    """A broker of this test's own: see ``sockbus.testing.Broker``."""
    from .broker import Broker

    with Broker() as broker:
        yield broker


@pytest.fixture
def sockbus_address(sockbus_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a broker of this test's own, and $SOCKBUS_ADDRESS while the test runs."""
    monkeypatch.setenv("SOCKBUS_ADDRESS", sockbus_broker.address)
    return sockbus_broker.address
