"""The broker of ``run``: where its directory is, and how it starts or does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import PATIENCE, command, environment, run
from tests.cli.running import TOLD, Run, Starting, is_there, killed, wait_for_end

TELL = ["sh", "-c", 'stat -c "%a %u $SOCKBUS_ADDRESS" "${SOCKBUS_ADDRESS#unix:}"']

# Where the directory is


LONG = "long" * 25


@pytest.mark.parametrize(
    ("runtime", "temporary", "expected"),
    [
        ("{place}/own", "{place}/readable", "{place}/own"),
        (None, "{place}/readable", "{place}/readable"),
        ("relative", "{place}/sticky", "{place}/sticky"),
        ("{place}/file", "{place}/none", "/tmp"),
        ("{place}/writable", "{place}/line\nfeed", "/tmp"),
        ("/proc/self", "{place}/own", "{place}/own"),
        (f"{{place}}/{LONG}", "{place}/own", "{place}/own"),
    ],
)
def test_directory_is_private_and_where_it_can_be(
    runtime: str | None, temporary: str, expected: str, place: Path
) -> None:
    modes = {"own": 0o700, "readable": 0o755, "sticky": 0o1777, "writable": 0o777, "line\nfeed": 0o700, LONG: 0o700}
    (place / "file").touch()
    for name, mode in modes.items():
        (place / name).mkdir()
        (place / name).chmod(mode)
    found = run(
        "run",
        *TELL,
        env=environment(XDG_RUNTIME_DIR=runtime and runtime.format(place=place), TMPDIR=temporary.format(place=place)),
    )
    mode, uid, address = found.out.split()
    assert (found.code, found.err) == (0, "")
    assert (mode, int(uid)) == ("700", os.geteuid())
    assert address.startswith(f"unix:{expected.format(place=place)}/sockbus-")
    assert not os.path.lexists(address.removeprefix("unix:"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have what is another user's")
def test_directory_of_another_user_is_not_taken(place: Path) -> None:
    # As after sudo, which may keep the variable: that user could put a bus of his own there.
    (place / "his").mkdir(mode=0o700)
    os.chown(place / "his", 12345, 12345)
    found = run("run", *TELL, env=environment(XDG_RUNTIME_DIR=str(place / "his"), TMPDIR=str(place)))
    assert found.out.split()[2].startswith(f"unix:{place}/sockbus-")


def test_nowhere_to_be_is_a_failure_that_names_each_place(place: Path) -> None:
    program = (
        "import sockbus.cli, sockbus.cli.private_broker as p\n"
        f"p._bases = lambda: ['{place}/none', '{place}/file', '/{'x' * 100}']\nraise SystemExit(sockbus.cli.main())"
    )
    (place / "file").touch()
    found = subprocess.run(
        [sys.executable, "-c", program, "run", "true"],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr.count(b"\n")) == (1, b"", 1)
    assert f"{place}/none: No such file or directory" in found.stderr.decode()
    assert f"{place}/file: Not a directory" in found.stderr.decode()
    assert "107" in found.stderr.decode()


def test_what_others_put_into_it_is_removed_with_it(place: Path) -> None:
    script = 'cd "${SOCKBUS_ADDRESS#unix:}" && mkdir -p a/b && touch a/c && ln -s "$1" d'
    (place / "precious").mkdir()
    (place / "precious" / "file").touch()
    assert (
        run(
            "run",
            "sh",
            "-c",
            script,
            "sh",
            f"{place}/precious",
            env=environment(TMPDIR=str(place), XDG_RUNTIME_DIR=None),
        ).code
        == 0
    )
    assert list(place.rglob("*")) == [place / "precious", place / "precious" / "file"]


# Starting


def test_broker_takes_nothing_of_the_input_and_adds_nothing_to_the_output() -> None:
    receive, send = os.pipe()
    with open(receive, "rb") as stdin, open(send, "wb"), Run(stdin=stdin) as running:
        running.command()
        broker = running.broker()
        for number in (0, 1):
            assert os.readlink(f"/proc/{broker}/fd/{number}") == os.devnull


def test_what_lies_in_the_current_directory_is_not_run(place: Path) -> None:
    for name in ("trio", "sockbus", "msgpack"):
        (place / f"{name}.py").write_text("raise SystemExit('taken over')")
    script = "import os, sys; os.chdir(sys.argv.pop(1)); import sockbus.cli; raise SystemExit(sockbus.cli.main())"
    found = subprocess.run(
        [sys.executable, "-P", "-c", script, str(place), "run", "echo", "as ever"],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"as ever\n", b"")


def test_broker_that_cannot_start_says_why_and_that_is_all(place: Path) -> None:
    # Nothing can be written to a file, so the broker's lock cannot be.
    found = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command("run", "echo")],
        env=environment(XDG_RUNTIME_DIR=str(place), PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr.count(b"\n")) == (1, b"", 1)
    assert b"File too large" in found.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_before_the_broker_is_ready_is_the_end(number: signal.Signals, place: Path) -> None:
    with Starting(place) as running:
        running.signal(number)
        running.let_broker_begin()
        assert running.code() == 128 + number
        assert (running.out.rest(), running.err.rest()) == (b"", b"")
        assert not is_there(running.starting)
        assert running.buses == []


def test_signal_that_is_ignored_is_so_before_the_broker_is_ready(place: Path) -> None:
    with Starting(place, "sh", "-c", 'trap "" HUP; exec "$@"', "sh") as running:
        running.signal(signal.SIGHUP)
        running.let_broker_begin()
        running.command()
        running.signal(signal.SIGTERM)
        assert running.lines() == ["SIGTERM"]
        assert running.code() == TOLD


def test_run_that_is_killed_before_the_broker_is_ready_leaves_nothing(place: Path) -> None:
    with Starting(place) as running:
        killed(running.pid)
        running.let_broker_begin()
        wait_for_end(running.starting)
        assert running.out.rest() == b""
        assert running.buses == []


def test_broker_that_is_killed_before_it_is_ready_is_told(place: Path) -> None:
    with Starting(place) as running:
        killed(running.starting)
        assert running.code() == 1
        told = "sockbus: the private broker was ended by SIGKILL before it was ready; try again\n"
        assert (running.out.rest(), running.err.rest().decode()) == (b"", told)
        assert running.buses == []
