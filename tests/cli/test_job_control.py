"""``run`` on a terminal: Ctrl-C, Ctrl-Z, and the end of the terminal."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.brokers import command
from tests.cli.running import (
    TOLD,
    Run,
    Starting,
    descendants,
    in_shell,
    is_there,
    listener,
    on_terminal,
    state,
    terminal,
    until,
)

CTRL_C, CTRL_Z = b"\x03", b"\x1a"


def test_ctrl_c_reaches_the_command_once() -> None:
    with terminal() as (keyboard, programs), Run(stdin=programs, before=on_terminal()) as running:
        running.command()
        # Two at the same time would look like one: that the terminal sent it is seen only when the command is done.
        running.signal(signal.SIGSTOP)
        until(lambda: state(running.pid) == "T")
        keyboard.write(CTRL_C)
        assert running.out.next() == "SIGINT"
        running.signal(signal.SIGCONT)
        assert running.out.next() == "SIGCONT"
        running.signal(signal.SIGTERM)
        assert running.lines() == ["SIGTERM"]
        assert running.code() == TOLD
        assert running.buses == []


def test_ctrl_c_leaves_the_bus_until_the_command_has_ended() -> None:
    farewell = f"""
import signal, subprocess, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(subprocess.call({command("pub", "bye", "--receipt")!r})))
print(flush=True)
while True:
    signal.pause()
"""
    with (
        terminal() as (keyboard, programs),
        Run(sys.executable, "-c", farewell, stdin=programs, before=on_terminal()) as running,
    ):
        running.out.next()
        keyboard.write(CTRL_C)
        assert running.lines() == ["matched 0 delivered 0 dropped 0 without_fds 0"]
        assert running.code() == 0
        assert running.err.rest() == b""


def test_ctrl_c_that_ends_the_command_is_130() -> None:
    with (
        terminal() as (keyboard, programs),
        Run("sh", "-c", "echo up; read line", stdin=programs, before=on_terminal()) as running,
    ):
        running.out.next()
        keyboard.write(CTRL_C)
        assert running.code() == 130
        assert running.err.rest() == b""


def test_terminal_that_is_gone_is_told_once() -> None:
    # The kernel tells the leader of the session alone.
    with terminal() as (keyboard, programs), Run(stdin=programs, before=on_terminal()) as running:
        running.command()
        keyboard.close()
        # In whichever order Python calls handlers.
        assert sorted((running.out.next(), running.out.next())) == ["SIGCONT", "SIGHUP"]
        running.signal(signal.SIGTERM)
        assert running.lines() == ["SIGTERM"]


@pytest.mark.parametrize("nested", [False, True])
def test_ctrl_z_gives_the_shell_the_terminal_and_fg_gives_it_back(*, nested: bool) -> None:
    words = [*command("run", "--"), *listener()] if nested else listener()
    with terminal() as (keyboard, programs), Run(*words, stdin=programs, before=in_shell()) as running:
        pid = running.command()
        supervisor = descendants(running.pid)[0]
        keyboard.write(CTRL_Z)
        assert running.out.next() == "stopped by SIGTSTP"
        assert running.out.next() == "SIGCONT"
        keyboard.write(CTRL_C)
        assert running.out.next() == "SIGINT"
        os.kill(supervisor, signal.SIGTERM)
        assert running.lines() == ["SIGTERM", f"ended with {TOLD}"]
        assert not is_there(pid)
        assert running.code() == 0
        assert running.buses == []


def test_stop_that_a_process_sends_is_as_ctrl_z() -> None:
    with terminal() as (_, programs), Run(stdin=programs, before=in_shell()) as running:
        running.command()
        supervisor = descendants(running.pid)[0]
        os.kill(supervisor, signal.SIGTSTP)
        assert running.out.next() == "stopped by SIGTSTP"
        assert running.out.next() == "SIGCONT"
        os.kill(supervisor, signal.SIGTERM)
        assert running.lines() == ["SIGTERM", f"ended with {TOLD}"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("kill -STOP $$; echo on; exit 5", ["stopped by SIGTSTP", "on", "ended with 5"]),
        # As programs do that take the keys for themselves.
        ("kill -TSTP 0; echo on; exit 5", ["stopped by SIGTSTP", "on", "ended with 5"]),
        ("kill -STOP 0; echo on; exit 5", ["stopped by SIGSTOP", "on", "ended with 5"]),
    ],
)
def test_command_that_stops_itself_gives_the_shell_the_terminal(script: str, told: list[str]) -> None:
    with terminal() as (_, programs), Run("sh", "-c", script, stdin=programs, before=in_shell()) as running:
        assert running.lines() == told
        assert running.buses == []


def test_run_that_is_continued_alone_continues_the_command() -> None:
    with terminal() as (_, programs), Run(stdin=programs, before=in_shell(then="nothing")) as running:
        os.kill(running.command(), signal.SIGSTOP)
        assert running.out.next() == "stopped by SIGTSTP"
        supervisor = descendants(running.pid)[0]
        os.kill(supervisor, signal.SIGCONT)
        assert running.out.next() == "SIGCONT"
        os.kill(supervisor, signal.SIGTERM)
        assert running.lines() == ["SIGTERM", f"ended with {TOLD}"]
        assert running.buses == []


def test_command_that_goes_on_already_is_not_continued_again() -> None:
    with terminal() as (keyboard, programs), Run(stdin=programs, before=in_shell(then="nothing")) as running:
        pid = running.command()
        keyboard.write(CTRL_Z)
        assert running.out.next() == "stopped by SIGTSTP"
        os.kill(pid, signal.SIGCONT)
        assert running.out.next() == "SIGCONT"
        supervisor = descendants(running.pid)[0]
        os.kill(supervisor, signal.SIGCONT)
        os.kill(supervisor, signal.SIGUSR1)
        assert running.out.next() == "SIGUSR1"
        os.kill(supervisor, signal.SIGTERM)
        assert running.lines() == ["SIGTERM", f"ended with {TOLD}"]


def test_background_job_that_reads_the_terminal_is_stopped_until_it_may() -> None:
    words = ["sh", "-c", "read line; echo $line; exit 5"]
    with terminal() as (keyboard, programs), Run(*words, stdin=programs, before=in_shell("background")) as running:
        assert running.out.next() == "stopped by SIGTTIN"
        keyboard.write(b"typed\n")
        assert running.lines() == ["typed", "ended with 5"]


def test_ctrl_z_before_there_is_a_command_is_no_end(place: Path) -> None:
    with terminal() as (keyboard, programs), Starting(place, *in_shell(), stdin=programs) as running:
        keyboard.write(CTRL_Z)
        assert running.out.next() == "stopped by SIGTSTP"
        running.let_broker_begin()
        running.command()
        os.kill(descendants(running.pid)[0], signal.SIGTERM)
        assert running.lines() == ["SIGTERM", f"ended with {TOLD}"]


def test_command_that_is_stopped_where_nobody_does_job_control_is_left_so() -> None:
    # Whoever stopped it will continue it, and knows nothing of the process that waits for it.
    script = ["sh", "-c", '"$@"; exit $?', "sh"]
    with terminal() as (_, programs), Run(stdin=programs, before=[*in_shell(), *script]) as running:
        pid = running.command()
        supervisor = descendants(running.pid)[1]
        os.kill(pid, signal.SIGSTOP)
        until(lambda: state(pid) == "T")
        os.kill(supervisor, signal.SIGUSR1)
        os.kill(pid, signal.SIGCONT)
        assert sorted((running.out.next(), running.out.next())) == ["SIGCONT", "SIGUSR1"]
        os.kill(supervisor, signal.SIGTERM)
        assert running.out.next() == "SIGTERM"
