"""The fixtures of the pytest plugin, found by its entry point, and what they cost those who use none."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sockbus.testing import Broker
from sockbus.trio import connect
from tests.brokers import PATIENCE, command, environment

ELSEWHERE = "unix:/elsewhere"


def run_pytest(directory: Path, test_file: str, *options: str, env: dict[str, str] | None = None) -> Sequence[str]:
    """Run pytest on one file, warnings being errors, in a project that says nothing else; the lines of its report."""
    (directory / "test_it.py").write_text(test_file)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-rA", "-p", "no:cacheprovider", *options],
        cwd=directory,
        env=environment(SOCKBUS_ADDRESS=ELSEWHERE, **(env or {})),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


async def test_address_is_the_one_that_is_found_without_being_named(sockbus_address: str) -> None:
    assert sockbus_address.startswith("unix:")
    async with connect() as bus:
        assert bus.address == sockbus_address.replace("unix:", "seqpacket:") + "/seqpacket"


def test_program_that_the_test_starts_finds_the_broker(sockbus_address: str) -> None:
    done = subprocess.run(command("status", "--json"), capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert sockbus_address in done.stdout


@pytest.mark.parametrize("scheme", ["unix", "seqpacket", "stream", "tcp"])
async def test_broker_is_reached_by_every_scheme(scheme: str, sockbus_broker: Broker) -> None:
    async with connect(sockbus_broker.addresses[scheme]) as bus:
        assert bus.address.startswith("seqpacket:" if scheme == "unix" else f"{scheme}:")


def test_broker_alone_leaves_the_environment(sockbus_broker: Broker) -> None:
    assert os.environ.get("SOCKBUS_ADDRESS") != sockbus_broker.address


def test_address_is_that_of_the_broker(sockbus_address: str, sockbus_broker: Broker) -> None:
    assert sockbus_address == sockbus_broker.address


EACH_ITS_OWN = """
import os
import pytest

seen = []

def test_environment_before():
    assert os.environ["SOCKBUS_ADDRESS"] == "unix:/elsewhere"

@pytest.mark.parametrize("number", [1, 2])
def test_with_address(number, sockbus_address):
    assert os.environ["SOCKBUS_ADDRESS"] == sockbus_address
    seen.append(sockbus_address)

def test_that_fails(sockbus_address):
    seen.append(sockbus_address)
    raise LookupError("on purpose")

def test_environment_after():
    assert os.environ["SOCKBUS_ADDRESS"] == "unix:/elsewhere"
    assert len(set(seen)) == 3
    assert not any(os.path.exists(address.removeprefix("unix:")) for address in seen)
"""


def test_each_test_has_a_broker_of_its_own_and_leaves_the_environment(tmp_path: Path) -> None:
    lines = run_pytest(tmp_path, EACH_ITS_OWN)
    assert "1 failed, 4 passed" in lines[-1]
    assert "FAILED test_it.py::test_that_fails - LookupError: on purpose" in lines


OVERRIDDEN = """
import pytest
from sockbus.testing import Broker

@pytest.fixture
def sockbus_broker():
    with Broker(limits={"message_bytes": 1000}, tcp=False) as broker:
        broker.mine = True
        yield broker

def test_address(sockbus_address, sockbus_broker):
    assert sockbus_broker.mine
    assert sockbus_address == sockbus_broker.address
"""


def test_broker_of_a_projects_own_is_the_one_whose_address_is_given(tmp_path: Path) -> None:
    assert "1 passed" in run_pytest(tmp_path, OVERRIDDEN)[-1]


LOADS_NOTHING = """
import sys

LATER = {"trio", "sockbus.broker", "sockbus.testing.broker"}

def test_without_fixture():
    assert "sockbus.testing.plugin" in sys.modules
    assert not LATER & sys.modules.keys()

def test_with_fixture(sockbus_broker):
    assert LATER <= sys.modules.keys()
"""


def test_tests_that_want_no_broker_load_none(tmp_path: Path) -> None:
    # Others' plugins load whatever they like.
    lines = run_pytest(
        tmp_path, LOADS_NOTHING, "-p", "sockbus.testing.plugin", env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    )
    assert "2 passed" in lines[-1]


def test_plugin_adds_no_runtime_to_what_pytest_loads() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import sockbus.testing.plugin;"
        "print({name.partition('.')[0] for name in set(sys.modules) - before} & {'trio', 'asyncio', 'selectors'})"
    )
    run = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("set()\n", "")


def test_plugin_is_registered_and_needs_no_pytest_of_who_installs_it() -> None:
    found = importlib.metadata.distribution("sockbus")
    assert [entry.value for entry in found.entry_points.select(group="pytest11")] == ["sockbus.testing.plugin"]
    wanted = [name for name in found.requires or [] if "extra ==" not in name]
    assert sorted(name.partition(">")[0] for name in wanted) == ["msgpack", "trio"]


def test_name_that_the_package_has_not_is_an_attribute_error() -> None:
    import sockbus.testing

    with pytest.raises(AttributeError, match=r"'sockbus\.testing' has no attribute 'Brocker'"):
        sockbus.testing.Brocker  # noqa: B018
