"""A bus that a forked child inherits: a clear error there, and nothing of it to be noticed in the parent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.brokers import BrokerProcess
from tests.processes.scenarios import SCENARIOS

CASES = [
    (name, runtime, transport)
    for name, scenario in SCENARIOS.items()
    for runtime in scenario.runtimes
    for transport in scenario.transports
]


@pytest.mark.parametrize(("name", "runtime", "transport"), CASES, ids=["-".join(case) for case in CASES])
def test_scenario(
    name: str, runtime: str, transport: str, topic: str, common_broker: BrokerProcess, perform: Callable[..., None]
) -> None:
    perform(name, runtime, common_broker.address(transport), topic)
