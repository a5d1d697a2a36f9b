"""What only Trio has, Trio's own tests try over every transport."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.fixtures import address, broker_as_found, common_broker, limit_tests, topic, transport

__all__ = ["address", "broker_as_found", "common_broker", "topic", "transport"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit_tests(items, Path(__file__).parent)
