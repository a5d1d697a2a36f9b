"""``reply`` as a process: echoes, commands, and how commands fail."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.brokers import BrokerProcess, Program, command, run


def server(bus: BrokerProcess, *arguments: str) -> Program:
    """``sockbus reply``, in force."""
    program = Program(command("reply", "--address", bus.unix, *arguments))
    assert program.err.next() == f"serving {next(each for each in arguments if each[0] != '-')}"
    return program


def test_echo_gives_payload_headers_and_fds_back(bus: BrokerProcess, place: Path) -> None:
    (place / "file").write_bytes(b"12345")
    with server(bus, "echo", "--echo"):
        done = run("request", "echo", '{"a": 1}', "--fd", str(place / "file"), "--json", "--address", bus.unix)
    found = json.loads(done.out)
    assert (found["payload"], found["fds"]) == ({"a": 1}, [{"kind": "file", "size": 5}])


@pytest.mark.parametrize(
    ("words", "payload", "options", "reply"),
    [
        (["tr", "a-z", "A-Z"], "hello", [], '"HELLO"'),
        (["tr", "a-z", "A-Z"], "ä|b", ["--raw"], '{"base64": "w6R8Qg=="}'),
        (["cat"], '{"a": [1]}', [], '{"a": [1]}'),
        (["cat"], "two\nlines\n\n", [], '"two\\nlines\\n"'),
        (["wc", "-c"], "null", [], "0"),
        (["wc", "-c"], "12345", [], "5"),
        (["printf", r"\377\n"], "", [], '{"base64": "/wo="}'),
        (["echo", "$HOME;", "*"], "", [], '"$HOME; *"'),
        (["grep", "-c", "--", "-x"], "-x", [], "1"),
        (["true"], "", [], '""'),
        (["sh", "-c", "exec 0<&-; echo ignored the input"], "x" * 100_000, [], '"ignored the input"'),
    ],
)
def test_command_gets_the_payload_and_its_output_is_the_reply(
    bus: BrokerProcess, words: list[str], payload: str, options: list[str], reply: str
) -> None:
    with server(bus, *options, "run", "--exec", *words):
        done = run("request", "run", "-", "--json", "--address", bus.unix, stdin=payload.encode() + b"\n")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["payload"] == json.loads(reply)


def test_bytes_go_to_a_command_as_they_are(bus: BrokerProcess) -> None:
    with server(bus, "--raw", "run", "--exec", "cat"):
        done = run("request", "run", "--raw", "-", "--address", bus.unix, stdin=b'{"a": 1}\n')
    assert done == (0, '{"a": 1}\n', "")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["sh", "-c", "echo first >&2; echo the last >&2; echo >&2; exit 3"], "exited with code 3: the last"),
        (["false"], "false exited with code 1: it said nothing"),
        (["sh", "-c", "kill -9 $$"], "was ended by SIGKILL"),
        (["sh", "-c", "kill -40 $$"], "was ended by signal 40"),
    ],
)
def test_command_that_fails_is_an_error_of_its_requester_and_serving_goes_on(
    bus: BrokerProcess, words: list[str], named: str
) -> None:
    with server(bus, "bad", "--exec", *words):
        for _ in range(2):
            done = run("request", "bad", "--address", bus.unix)
            assert (done.code, done.out) == (1, "")
            assert done.err.startswith("sockbus: the server of 'bad' failed: CommandFailed: ")
            assert named in done.err
            assert done.err.count("\n") == 1


def test_complaints_of_a_command_are_shown_where_it_runs(bus: BrokerProcess) -> None:
    with server(bus, "loud", "--exec", "sh", "-c", "printf 'careful\\033[m\\n' >&2; echo done") as program:
        assert run("request", "loud", "--address", bus.unix).out == "done\n"
        assert program.err.next() == "careful\\u001b[m"


def test_command_that_disappears_is_an_error_of_its_requester(bus: BrokerProcess, place: Path) -> None:
    script = place / "script"
    script.write_text("#!/bin/sh\necho here\n")
    script.chmod(0o700)
    with server(bus, "script", "--exec", str(script)):
        assert run("request", "script", "--address", bus.unix).out == "here\n"
        script.unlink()
        done = run("request", "script", "--address", bus.unix)
    assert done.code == 1
    assert f"{script} cannot be run: No such file or directory" in done.err


@pytest.mark.parametrize(("words", "code"), [(["/nowhere/cmd"], 1), (["no-such-program-anywhere"], 1), ([], 2)])
def test_command_that_is_not_there_is_told_at_the_start(bus: BrokerProcess, words: list[str], code: int) -> None:
    done = run("reply", "a", "--address", bus.unix, "--exec", *words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert "--exec" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_command_too(bus: BrokerProcess, place: Path, number: signal.Signals, code: int) -> None:
    # The fifo is open for writing as long as the command lives.
    os.mkfifo(place / "alive")
    program = f"import signal; f = open({str(place / 'alive')!r}, 'w'); print('up', file=f, flush=True); signal.pause()"
    with server(bus, "long", "--exec", sys.executable, "-c", program) as replying:
        with Program(command("request", "long", "--timeout", "100", "--address", bus.unix)) as asking:
            with (place / "alive").open() as alive:
                assert alive.readline() == "up\n"
                replying.signal(number)
                assert replying.code() == code
                assert alive.read() == ""
            assert asking.code() == 1
            assert b"went away" in asking.err.rest()
        assert replying.err.rest() == b""


def test_signal_that_interrupts_another_thread_ends_it_all_the_same(bus: BrokerProcess) -> None:
    with server(bus, "threaded", "--exec", "cat") as replying:
        threads = {int(name) for name in os.listdir(f"/proc/{replying.process.pid}/task")} - {replying.process.pid}
        # Of a process that is named by the number of one of its threads the kernel interrupts that.
        os.kill(threads.pop(), signal.SIGTERM)
        assert replying.code() == 143


def test_command_that_ignores_sigterm_is_killed(bus: BrokerProcess, place: Path) -> None:
    os.mkfifo(place / "alive")
    program = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"f = open({str(place / 'alive')!r}, 'w'); print('up', file=f, flush=True)\nwhile True: signal.pause()"
    )
    with (
        server(bus, "stubborn", "--exec", sys.executable, "-c", program) as replying,
        Program(command("request", "stubborn", "--address", bus.unix)),
        (place / "alive").open() as alive,
    ):
        assert alive.readline() == "up\n"
        replying.signal(signal.SIGINT)
        assert replying.code() == 130
        assert alive.read() == ""


def test_command_is_ended_when_the_broker_goes(broker: BrokerProcess, place: Path) -> None:
    os.mkfifo(place / "alive")
    script = f"exec 3>{place}/alive; echo up >&3; exec sleep 1000"
    with (
        server(broker, "long", "--exec", "sh", "-c", script) as replying,
        Program(command("request", "long", "--timeout", "100", "--address", broker.unix)),
        (place / "alive").open() as alive,
    ):
        assert alive.readline() == "up\n"
        broker.kill()
        assert alive.read() == ""
        assert "was lost" in replying.err.next()
        broker.start()
        assert "connected again" in replying.err.next()


def test_commands_run_at_once(bus: BrokerProcess, place: Path) -> None:
    # Each waits for the other.
    for name in ("one", "two"):
        os.mkfifo(place / name)
    script = f'read mine other; echo "$mine" >{place}/$mine & read theirs <{place}/$other; echo "$theirs"'
    with server(bus, "pair", "--exec", "sh", "-c", script):
        asking = [
            Program(command("request", "pair", "--raw", f"{mine} {other}\n", "--address", bus.unix))
            for mine, other in (("one", "two"), ("two", "one"))
        ]
        for program, theirs in zip(asking, (b"two", b"one"), strict=True):
            with program:
                assert program.out.rest() == theirs
