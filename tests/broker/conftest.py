"""Brokers for hostile tests: one process for a module, a healthy pair on each transport beside what is done to it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.broker.healthy import HealthyPair
from tests.brokers import ROOT, BrokerProcess, environment

TRANSPORTS = ("seqpacket", "stream", "tcp")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="sockbus-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a broker that holds no line of its log back, so that lines can be counted."""
    place: Path = tmp_path_factory.mktemp("talkative")
    (place / "sitecustomize.py").write_text("import sockbus.broker.quiet\nsockbus.broker.quiet.BURST = 1 << 30\n")
    return environment(PYTHONPATH=f"{place}:{ROOT}")


@pytest.fixture(scope="module")
def common(talkative: dict[str, str]) -> Iterator[BrokerProcess]:
    """One broker for all tests of a module, which must survive them all."""
    with BrokerProcess(env=talkative) as broker:
        yield broker


@pytest.fixture(scope="module")
def pairs(common: BrokerProcess) -> Iterator[dict[str, HealthyPair]]:
    """A healthy pair on each transport of the common broker."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(HealthyPair(common.address(name))) for name in TRANSPORTS}
