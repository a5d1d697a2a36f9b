"""docs/from-*.md: the program before and the program after run, and both print what the guide says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.brokers import PATIENCE, ROOT, BrokerProcess, Done, command, environment, place
from tests.docs.servers import dbus_daemon, redis_server
from tests.pages import fenced

__all__ = ["place"]

GUIDES = {path.stem.removeprefix("from-"): path for path in (ROOT / "docs").glob("from-*.md")}

every_guide = pytest.mark.parametrize("guide", sorted(GUIDES))


def parts(guide: str) -> tuple[str, str, str]:
    """The program before, the program after, and what they print."""
    before, after, printed = fenced(GUIDES[guide].read_text())
    return before.text, after.text, printed.text


def run(program: str, directory: Path, *, by: Sequence[str] = (), **env: str) -> Done:
    """Save a program as its first line says, and run it there, by way of a command if there is one.

    What is still at work when that has lasted too long is killed, with all that it started.
    """
    name = program.partition("\n")[0].removeprefix("# ")
    (directory / name).write_text(program)
    process = subprocess.Popen(
        [*by, sys.executable, name],
        cwd=directory,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Done(process.returncode, out.decode(), err.decode())


@contextmanager
def server(guide: str, place: Path) -> Iterator[dict[str, str]]:
    """What the program before has to talk to, as variables of its environment."""
    if guide == "redis":
        with redis_server(place) as url:
            yield {"REDIS_URL": url}
    elif guide == "dbus":
        with dbus_daemon(place) as address:
            yield {"DBUS_SESSION_BUS_ADDRESS": address}
    else:
        yield {}


def test_each_guide_is_found() -> None:
    assert sorted(GUIDES) == ["dbus", "multiprocessing", "redis", "zeromq"]


@every_guide
def test_guide_has_two_programs_and_one_output(guide: str) -> None:
    found = fenced(GUIDES[guide].read_text())
    assert [block.language for block in found] == ["python", "python", "text"]
    assert [block.text.partition("\n")[0] for block in found[:2]] == ["# before.py", "# after.py"]
    assert found[2].text


@every_guide
def test_program_before_prints_what_the_guide_says(guide: str, place: Path) -> None:
    before, _, printed = parts(guide)
    with server(guide, place) as env:
        assert run(before, place, **env) == (0, printed, "")


@every_guide
def test_program_after_prints_the_same(guide: str, place: Path) -> None:
    _, after, printed = parts(guide)
    with BrokerProcess() as broker:
        assert run(after, place, SOCKBUS_ADDRESS=broker.unix) == (0, printed, "")


@every_guide
def test_program_after_prints_the_same_on_a_bus_of_its_own(guide: str, place: Path) -> None:
    _, after, printed = parts(guide)
    assert "`sockbus run -- python after.py`" in GUIDES[guide].read_text()
    assert run(after, place, by=command("run", "--")) == (0, printed, "")


@every_guide
def test_program_after_ends_and_says_what_to_start_without_a_broker(guide: str, place: Path) -> None:
    _, after, _ = parts(guide)
    done = run(after, place, SOCKBUS_ADDRESS=f"unix:{place}/bus")
    assert (done.code, done.out) == (1, "")
    assert f"sockbus broker unix:{place}/bus" in done.err
