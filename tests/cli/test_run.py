"""``run`` as a process: exit codes, what the command is given, and every way in which it can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import PATIENCE, Done, command, environment, run
from tests.cli.running import TOLD, Run, is_there, killed, listener, state, until, wait_for_end

PYTHON = [sys.executable, "-S", "-E", "-c"]


def done(place: Path, *words: str, stdin: bytes = b"", **variables: str | None) -> Done:
    """Run it to its end; nothing may be left behind."""
    buses = place / "run"
    buses.mkdir(mode=0o700)
    found = run("run", *words, env=environment(XDG_RUNTIME_DIR=str(buses), **variables), stdin=stdin)
    assert list(buses.iterdir()) == []
    return found


def both(place: Path, words: list[str], before: list[str]) -> tuple[Done, Done]:
    """What a command does when it is run, and when it is run by itself."""
    results = []
    for by in ([], command("run", "--")):
        ended = subprocess.run(
            [*before, *by, *words],
            env=environment(XDG_RUNTIME_DIR=str(place)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        results.append(Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode()))
    return results[1], results[0]


# Exit codes


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--", "true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -40 $$"], 168),
    ],
)
def test_exit_code_is_that_of_the_command(words: list[str], code: int, place: Path) -> None:
    assert done(place, *words) == (code, "", "")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("no-such-program-anywhere", "No such file"),
        ("{place}/text", "Permission denied"),
        ("{place}/script", "No such file"),
        ("{place}/noise\n", "Exec format error"),
    ],
)
def test_command_that_cannot_be_run_is_a_failure_on_one_line(word: str, reason: str, place: Path) -> None:
    (place / "text").write_text("not executable")
    for name, content in (("script", "#!/nowhere/at/all\n"), ("noise\n", "noise")):
        (place / name).write_text(content)
        (place / name).chmod(0o700)
    found = done(place, "--", word.format(place=place))
    assert (found.code, found.out, found.err.count("\n")) == (1, "", 1)
    assert reason in found.err
    assert repr(word.format(place=place)) in found.err


def test_limit_that_is_none_is_a_usage_error_on_one_line(place: Path) -> None:
    found = done(place, "--limit", "speed=1", "echo")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "'speed'" in found.err


# What the command is given


def test_bus_is_there_for_the_command_and_its_children(place: Path) -> None:
    script = 'echo "$SOCKBUS_ADDRESS"; sh -c \'"$@" --json; exit 4\' sh "$@"; exit $?'
    found = done(place, "--limit", "link_fds=9", "sh", "-c", script, "sh", *command("status"))
    address, status = found.out.splitlines()
    assert (found.code, found.err) == (4, "")
    assert json.loads(status)["broker"]["addresses"] == [address]
    assert json.loads(status)["limits"]["link_fds"] == 9
    assert address.startswith(f"unix:{place}/run/sockbus-")


def test_run_in_a_run_has_a_bus_of_its_own(place: Path) -> None:
    script = 'echo "$SOCKBUS_ADDRESS"; "$@"; echo "$SOCKBUS_ADDRESS"; ls "$XDG_RUNTIME_DIR"'
    found = done(
        place, "sh", "-c", script, "sh", *command("run", "sh", "-c", 'echo "$SOCKBUS_ADDRESS"; ls "$XDG_RUNTIME_DIR"')
    )
    outer, inner, *listing, again, last = found.out.splitlines()
    assert outer == again != inner
    assert sorted(f"unix:{place}/run/{name}" for name in listing) == sorted([outer, inner])
    assert outer == f"unix:{place}/run/{last}"


def test_all_behind_the_command_is_its_own(place: Path) -> None:
    words = ["--help", "--address", "x", "--", "--limit", "é\udcff"]
    found = subprocess.run(
        command("run", "printf", "%s|", *words),
        env=environment(XDG_RUNTIME_DIR=str(place)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.stdout == b"".join(os.fsencode(word) + b"|" for word in words)


def test_input_and_output_are_the_users_own(place: Path) -> None:
    found = done(place, "sh", "-c", "cat; echo careful >&2", stdin=b"two\nlines\n")
    assert found == (0, "two\nlines\n", "careful\n")


@pytest.mark.parametrize(
    "before",
    [
        ["env"],
        ["sh", "-c", 'trap "" HUP USR1; exec 7</dev/null "$@"', "sh"],
        ["sh", "-c", 'exec "$@" <&-', "sh"],
    ],
)
def test_descriptors_and_signals_are_as_without_it(before: list[str], place: Path) -> None:
    # Of what is closed on exec nothing may come; what is not is the user's.
    script = """
        for fd in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$fd ] && echo $fd; done
        while read line; do case $line in SigBlk*|SigIgn*) echo $line; esac; done </proc/$$/status
        sh -c "exit 5"; echo $?"""
    through, alone = both(place, ["sh", "-c", script], before)
    assert through == alone
    assert through.out.endswith("\n5\n")
    assert ("\n7\n" in through.out) == ("7<" in "".join(before))
    assert through.out.startswith("0\n") == ("<&-" not in "".join(before))


def test_children_that_would_leave_unseen_are_seen(place: Path) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    through, _ = both(place, ["sh", "-c", "exit 3"], [*PYTHON, ignoring])
    assert through == (3, "", "")


def test_children_of_others_are_no_concern(place: Path) -> None:
    # As process 1 of a container, or behind exec, it is the parent of what it did not start.
    with Run(before=["sh", "-c", 'sh -c "read line; exit 9" & exec "$@"', "sh"], stdin=subprocess.DEVNULL) as running:
        running.command()
        running.signal(signal.SIGTERM)
        assert running.code() == TOLD


def test_neither_a_runtime_nor_a_client_is_loaded(place: Path) -> None:
    program = (
        "import sys\nfrom sockbus.cli import main\nassert main(['run', 'true']) == 0\n"
        "print(sorted({'trio', 'asyncio', 'subprocess', 'sockbus.broker', 'sockbus.trio', 'sockbus.protocol'}"
        " & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(XDG_RUNTIME_DIR=str(place)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (found.stdout, found.stderr) == (b"[]\n", b"")


# Signals


def test_signal_that_a_process_sends_reaches_the_command_once() -> None:
    numbers = ["INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT"]
    with Run() as running:
        running.command()
        for name in numbers:
            running.signal(signal.Signals[f"SIG{name}"])
            assert running.out.next() == f"SIG{name}"
        running.signal(signal.SIGTERM)
        assert running.lines() == ["SIGTERM"]
        assert running.code() == TOLD
        assert running.err.rest() == b""
        assert running.buses == []


def test_alarm_that_was_set_before_reaches_the_command() -> None:
    # Pending from the start; LISTENER lets it in.
    alarm = """import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
signal.setitimer(signal.ITIMER_REAL, 0.001)
while not signal.sigpending():
    pass
os.execvp(sys.argv[1], sys.argv[1:])"""
    with Run(before=[*PYTHON, alarm]) as running:
        running.command()
        assert running.out.next() == "SIGALRM"


def test_signal_of_the_command_to_its_group_is_not_passed_back() -> None:
    session = "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])"
    with Run(
        *listener("number == signal.SIGUSR2 and os.kill(0, signal.SIGUSR1)"), before=[*PYTHON, session]
    ) as running:
        running.command()
        running.signal(signal.SIGUSR2)
        assert sorted((running.out.next(), running.out.next())) == ["SIGUSR1", "SIGUSR2"]
        running.signal(signal.SIGTERM)
        assert running.lines() == ["SIGTERM"]
        assert running.code() == TOLD


# Every way in which it can end


def test_run_that_is_killed_takes_command_and_broker_with_it() -> None:
    with Run() as running:
        pids = [running.command(), running.broker()]
        killed(running.pid)
        assert running.lines() == ["SIGTERM"]
        for pid in pids:
            wait_for_end(pid)
        assert running.buses == []
        assert running.err.rest() == b""


def test_broker_that_is_killed_is_told_and_the_command_goes_on() -> None:
    with Run() as running:
        running.command()
        killed(running.broker())
        assert (
            running.err.next()
            == f"sockbus: the private broker was ended by SIGKILL; {sys.executable} goes on without a bus"
        )
        assert running.buses == []
        running.signal(signal.SIGUSR1)
        assert running.out.next() == "SIGUSR1"
        running.signal(signal.SIGTERM)
        assert running.code() == TOLD
        assert running.err.rest() == b""


def test_command_that_is_killed_takes_the_broker_with_it() -> None:
    with Run() as running:
        pid, broker = running.command(), running.broker()
        killed(pid)
        assert running.code() == 137
        assert not is_there(broker)
        assert running.buses == []


def test_what_outlives_the_command_does_not_keep_the_bus() -> None:
    script = """exec 3<&0 >/dev/null 2>&1
        sh -c 'echo "$$ $SOCKBUS_ADDRESS" >"$XDG_RUNTIME_DIR/told"; read line' <&3 &
        exit 6"""
    receive, send = os.pipe()
    with (
        open(receive, "rb") as stdin,
        open(send, "wb") as keyboard,
        Run("sh", "-c", script, stdin=stdin) as running,
    ):
        assert running.code() == 6
        pid, address = until((running.place / "told").read_text).split()
        assert is_there(int(pid))
        assert not Path(address.removeprefix("unix:")).exists()
        keyboard.close()
        wait_for_end(int(pid))


def test_broker_that_does_not_end_is_killed() -> None:
    patience = "import sockbus.cli, sockbus.cli.run as r; r.PATIENCE = 0.1; raise SystemExit(sockbus.cli.main())"
    with Run(program=[sys.executable, "-c", patience]) as running:
        running.command()
        broker = running.broker()
        os.kill(broker, signal.SIGSTOP)
        until(lambda: state(broker) == "T")
        running.signal(signal.SIGTERM)
        assert running.code() == TOLD
        assert not is_there(broker)
        assert running.buses == []
