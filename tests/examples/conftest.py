"""The fixtures of tests/brokers.py, by name, and a broker for what leaves nothing behind in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers import BrokerProcess, broker, place

__all__ = ["broker", "common_broker", "place"]


@pytest.fixture(scope="module")
def common_broker() -> Iterator[BrokerProcess]:
    """For tests whose programs subscribe to nothing and serve nothing that another test could meet."""
    with BrokerProcess() as broker:
        yield broker
