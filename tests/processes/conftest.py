"""A broker and a process that forks, for all scenarios."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.brokers import Program
from tests.contract.fixtures import broker_as_found, common_broker, topic

__all__ = ["broker_as_found", "common_broker", "topic"]

Perform = Callable[..., None]


@pytest.fixture(scope="session")
def perform() -> Iterator[Perform]:
    """Runs a scenario in a process of its own, and fails when that ends with an error or says anything."""
    import subprocess

    with Program([sys.executable, "-m", "tests.processes.zygote"], stdin=subprocess.PIPE) as zygote:
        stdin = zygote.process.stdin
        assert stdin is not None

        def run(*scenario: str) -> None:
            stdin.write(json.dumps(scenario).encode() + b"\n")
            stdin.flush()
            line = zygote.out.next()
            assert line, zygote.err.rest().decode()
            code, output = json.loads(line)
            assert (code, output) == (0, ""), output

        yield run
        stdin.close()
