"""Exit codes, and errors on one line of stderr, of the whole program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sockbus.cli import main
from sockbus.cli.verbs import VERBS
from tests.brokers import PATIENCE, BrokerProcess, Program, command, environment, run


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)])
def test_help_is_a_result(verb: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main([*verb, "--help"]) == 0
    out, err = capfdbinary.readouterr()
    assert out.startswith(b"usage: sockbus")
    assert err == b""


def test_version_is_a_result() -> None:
    done = run("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("sockbus ")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["pub"], ["sub", "a\n\x1b[31m"], ["status", "--bogus\nline"]])
def test_usage_error_is_one_line_with_exit_code_2(
    arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(arguments) == 2
    out, err = capfdbinary.readouterr()
    assert (out, err.count(b"\n")) == (b"", 1)
    assert err.startswith(b"sockbus: ")
    assert err.decode().rstrip("\n").isprintable()


def test_exit_code_of_the_module_is_that_of_main() -> None:
    done = run("nonsense")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("redirection", "complaint"), [("> /dev/full", "No space left on device"), (">&-", "standard output is closed")]
)
def test_result_that_cannot_be_written_is_a_failure(redirection: str, complaint: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *command("--version")],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert complaint in done.stderr.decode()


def test_reader_that_has_gone_ends_it_quietly() -> None:
    receive, send = os.pipe()
    os.close(receive)
    with open(send, "wb") as out:
        done = subprocess.run(
            command("--help"), env=environment(), stdout=out, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_nobody_to_complain_to_leaves_the_exit_code(place: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" 2>&-', "sh", *command("status", "--address", f"unix:{place}/bus")],
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1


def test_closed_stdin_is_named_where_it_was_to_be_read() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *command("pub", "a", "-")],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"standard input is closed" in done.stderr


def test_ctrl_c_while_reading_stdin_is_130() -> None:
    receive, send = os.pipe()
    with open(receive, "rb") as stdin:
        program = Program(command("pub", "a", "-"), stdin=stdin)
    with program, open(send, "wb", buffering=0) as keyboard:
        keyboard.write(b"x" * 100_000)  # more than a pipe holds: the program is reading
        program.signal(signal.SIGINT)
        assert program.code() == 130
        assert (program.out.rest(), program.err.rest()) == (b"", b"")


def test_stdin_that_does_not_block_is_read_to_its_end(broker: BrokerProcess) -> None:
    receive, send = os.pipe()
    os.set_blocking(receive, False)
    with Program(command("reply", "echo", "--echo", "--address", broker.unix)) as server:
        server.err.next()
        with open(receive, "rb") as stdin:
            program = Program(command("request", "echo", "-", "--address", broker.unix), stdin=stdin)
        with program, open(send, "wb", buffering=0) as keyboard:
            for _ in range(3):
                keyboard.write(b"x" * 60_000)
            keyboard.close()
            assert len(program.out.rest()) == 180_001
            assert program.code() == 0


@pytest.mark.parametrize("arguments", [["--version"], ["pub"], ["sub", "--help"]])
def test_nothing_of_the_runtime_is_loaded_for_help_and_usage_errors(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom sockbus.cli import main\nmain(sys.argv[1:])\n"
        "sys.exit(3 if {'trio', 'sockbus.broker'} & sys.modules.keys() else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0


def test_error_of_the_system_is_a_sentence(broker: BrokerProcess) -> None:
    # The file and the socket are all that is left to be opened.
    script = 'ulimit -n 5; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command("pub", "a", "--fd", "/dev/null", "--address", broker.unix)],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"Too many open files" in done.stderr


# What takes long to load, and what they need it for comes with errors, --help and --exec only.
UNNEEDED = {"asyncio", "importlib.metadata", "ipaddress", "logging", "shutil", "subprocess", "trio"}


def test_what_takes_long_to_load_is_not_loaded_by_what_only_connects(broker: BrokerProcess) -> None:
    program = (
        "import sys\nfrom sockbus.cli import main\n"
        f"code = main(sys.argv[1:])\nprint(code, sorted({UNNEEDED} & sys.modules.keys()))"
    )
    options = ["--address", broker.unix]
    with Program([sys.executable, "-c", program, "reply", "a", "--echo", *options]) as server:
        assert server.err.next() == "serving a"
        for verb in (["pub", "a"], ["sub", "a", "--timeout", "0.01"], ["request", "a"], ["status"]):
            done = subprocess.run(
                [sys.executable, "-c", program, *verb, *options],
                env=environment(),
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.stdout.splitlines()[-1] == b"0 []", verb
        server.signal(signal.SIGTERM)
        assert server.out.rest() == b"143 []\n"
