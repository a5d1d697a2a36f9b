"""The contract runs on every runtime, over every transport."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fixtures import address, broker_as_found, common_broker, limit_tests, topic, transport
from tests.contract.runtime import RUNTIMES, Runtime

__all__ = ["address", "broker_as_found", "common_broker", "topic", "transport"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit_tests(items, Path(__file__).parent)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return RUNTIMES[request.param]


@pytest.fixture
def connect(runtime: Runtime, address: str) -> Callable[..., Any]:
    """``connect`` of the runtime to the common broker, by the transport of this test."""
    return functools.partial(runtime.connect, address)
