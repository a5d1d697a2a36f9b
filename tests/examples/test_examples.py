"""Each example run as its docstring says, as a process against a broker in this one."""

from __future__ import annotations

import ast
import contextlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from sockbus.testing import Broker
from tests.brokers import PATIENCE, ROOT, Done, Program, environment

EXAMPLES = ROOT / "examples"
MINIMAL = "minimal_client.py"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
# Arguments in front of ADDRESS. The first four run until they are ended.
RUNNING = [("uppercase_server.py",), ("subscribe.py", "a.>"), ("pass_file.py", "receive"), ("work_queue.py", "work")]
ENDING = [
    ("uppercase_client.py",),
    ("publish.py", "a.b", "text"),
    ("pass_file.py", "send", __file__),
    ("work_queue.py", "share"),
    ("pool.py", "spawn"),
    ("pool.py", "fork"),
    ("futures.py",),
    ("zero_downtime.py", "serve"),
    ("zero_downtime.py", "call"),
]


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments]


def run(name: str, *arguments: str, stdin: str | IO[bytes] = "", address: str | None = None) -> Done:
    """Run an example to its end; ``address`` is its $SOCKBUS_ADDRESS."""
    given: dict[str, Any] = {"input": stdin.encode()} if isinstance(stdin, str) else {"stdin": stdin}
    done = subprocess.run(
        command(name, *arguments),
        **given,
        env=environment(SOCKBUS_ADDRESS=address),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[Program]:
    """An example that runs on, once it has said that it is ready."""
    with Program(command(name, *arguments)) as program:
        line = program.err.next()
        assert " at " in line, line
        yield program


def assert_one_complaint(done: Done, name: str, named: str) -> None:
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(rf"{name.removesuffix('.py')}: .*{re.escape(named)}.*\n", done.err)


# The main job of each


@pytest.mark.parametrize(("server", "client"), [("unix", "unix"), ("tcp", "tcp"), ("unix", "tcp"), ("tcp", "stream")])
def test_lines_come_back_in_upper_case_whatever_the_addresses(server: str, client: str, sockbus_broker: Broker) -> None:
    with running("uppercase_server.py", sockbus_broker.addresses[server]):
        done = run("uppercase_client.py", sockbus_broker.addresses[client], stdin="hello\n\ngrüße, Welt")
    assert done == (0, "HELLO\n\nGRÜSSE, WELT\n", "")


def test_address_is_taken_from_the_environment(sockbus_address: str) -> None:
    assert run("publish.py", "a.b", "text", address=sockbus_address).out.startswith("Receipt(matched=0,")


def test_uppercase_client_without_a_server_says_so(sockbus_address: str) -> None:
    done = run("uppercase_client.py", sockbus_address, stdin="hello\n")
    assert_one_complaint(done, "uppercase_client.py", "text.upper")


@pytest.mark.parametrize(("subscriber", "publisher"), [("unix", "tcp"), ("tcp", "stream")])
def test_subscriber_prints_what_was_published_and_by_whom(
    subscriber: str, publisher: str, sockbus_broker: Broker
) -> None:
    with running("subscribe.py", "sensors.*.temp", sockbus_broker.addresses[subscriber]) as program:
        other = run("publish.py", "sensors.temp", "not matched", sockbus_broker.addresses[publisher])
        done = run("publish.py", "sensors.kitchen.temp", "21.5", sockbus_broker.addresses[publisher])
        line = program.out.next()
    assert other.out == "Receipt(matched=0, delivered=0, dropped=0, without_fds=0)\n"
    assert done == (0, "Receipt(matched=1, delivered=1, dropped=0, without_fds=0)\n", "")
    transport = "seqpacket" if publisher == "unix" else publisher
    pid = "None" if transport == "tcp" else r"\d+"
    assert re.fullmatch(rf"sensors\.kitchen\.temp: 21\.5 from publisher \d+ \({transport}, pid {pid}\)", line)


@pytest.mark.parametrize(("receiver", "sender"), [("seqpacket", "stream"), ("stream", "unix")])
def test_receiver_reads_a_file_that_has_no_path(receiver: str, sender: str, sockbus_broker: Broker) -> None:
    content = b"line\n" * 20_000
    with (
        tempfile.TemporaryFile() as file,
        running("pass_file.py", "receive", sockbus_broker.addresses[receiver]) as program,
    ):
        file.write(content)
        file.flush()
        done = run("pass_file.py", "send", "/dev/stdin", sockbus_broker.addresses[sender], stdin=file)
        assert program.out.rest() == content
        assert (program.code(), program.err.rest()) == (0, b"")
    assert done == (0, "Receipt(matched=1, delivered=1, dropped=0, without_fds=0)\n", "")


def test_file_is_not_sent_over_tcp(sockbus_broker: Broker) -> None:
    done = run("pass_file.py", "send", __file__, sockbus_broker.addresses["tcp"])
    assert_one_complaint(done, "pass_file.py", "UNIX socket")


def test_file_is_not_received_over_tcp_and_the_sender_is_told(sockbus_broker: Broker) -> None:
    with running("pass_file.py", "receive", sockbus_broker.addresses["tcp"]):
        done = run("pass_file.py", "send", __file__, sockbus_broker.address)
    assert done == (0, "Receipt(matched=1, delivered=0, dropped=0, without_fds=1)\n", "")


@pytest.mark.parametrize("sharer", ["unix", "tcp"])
def test_workers_on_every_transport_share_the_jobs(sharer: str, sockbus_broker: Broker) -> None:
    with contextlib.ExitStack() as stack:
        for transport in ("seqpacket", "stream", "tcp"):
            stack.enter_context(running("work_queue.py", "work", sockbus_broker.addresses[transport]))
        done = run("work_queue.py", "share", sockbus_broker.addresses[sharer])
    assert (done.code, done.err) == (0, "")
    *results, summary = done.out.splitlines()
    found = [re.fullmatch(r"(worker-\d+): (\d+) primes are below (\d+)", line) for line in results]
    by_worker = Counter(match[1] for match in found if match)
    assert sorted(int(match[3]) for match in found if match) == [30 * number for number in range(1, 31)]
    assert "worker" in summary
    assert {match[0]: int(match[1]) for match in re.findall(r"(worker-\d+) did (\d+)", summary)} == by_worker
    assert len(by_worker) == 3


def test_jobs_without_workers_are_not_shared_out(sockbus_address: str) -> None:
    assert_one_complaint(run("work_queue.py", "share", sockbus_address), "work_queue.py", "no worker")


@pytest.mark.parametrize(("method", "transport"), [("spawn", "unix"), ("fork", "seqpacket"), ("fork", "tcp")])
def test_workers_of_a_pool_tell_how_far_they_are(method: str, transport: str, sockbus_broker: Broker) -> None:
    done = run("pool.py", method, sockbus_broker.addresses[transport])
    assert (done.code, done.err) == (0, "")
    *progress, results = done.out.splitlines()
    found = [re.fullmatch(r"\w+PoolWorker-\d+: (\d+) primes are below (\d+)", line) for line in progress]
    counts = {int(match[2]): int(match[1]) for match in found if match}
    assert sorted(counts) == list(range(300, 3900, 300))
    assert results == f"in order: {[counts[limit] for limit in sorted(counts)]}"


@pytest.mark.parametrize("arguments", [(), ("thread",), ("fork", "unix:/tmp/a", "unix:/tmp/b")], ids=str)
def test_pool_that_is_started_otherwise_says_how_it_is(arguments: tuple[str, ...]) -> None:
    done = run("pool.py", *arguments)
    assert (done.code, done.out) == (1, "")
    assert "python examples/pool.py spawn [ADDRESS]" in done.err


@pytest.mark.parametrize("transport", ["unix", "stream"])
def test_workers_of_futures_count_files_that_they_are_given(transport: str, sockbus_broker: Broker) -> None:
    done = run("futures.py", sockbus_broker.addresses[transport])
    lines = {name: len((EXAMPLES / name).read_text().splitlines()) for name in NAMES}
    assert done == (0, "".join(f"{name}: {count} lines\n" for name, count in lines.items()), "")


def test_workers_of_futures_are_given_no_files_over_tcp(sockbus_broker: Broker) -> None:
    assert_one_complaint(run("futures.py", sockbus_broker.addresses["tcp"]), "futures.py", "UNIX socket")


@pytest.mark.parametrize(("server", "client"), [("unix", "tcp"), ("stream", "seqpacket")])
def test_client_of_a_server_that_is_killed_is_not_refused(server: str, client: str, sockbus_broker: Broker) -> None:
    with contextlib.ExitStack() as stack:
        caller = stack.enter_context(Program(command("zero_downtime.py", "call", sockbus_broker.addresses[client])))
        for _ in range(4):
            with running("zero_downtime.py", "serve", sockbus_broker.addresses[server]) as program:
                assert caller.out.next() == f"answered by process {program.process.pid}"
                program.signal(signal.SIGKILL)
                assert program.code() == -signal.SIGKILL
        assert caller.process.poll() is None


def test_server_cannot_leave_its_socket_over_tcp(sockbus_broker: Broker) -> None:
    done = run("zero_downtime.py", "serve", sockbus_broker.addresses["tcp"])
    assert_one_complaint(done, "zero_downtime.py", "UNIX socket")


@pytest.mark.parametrize("transport", ["unix", "seqpacket", "stream", "tcp"])
def test_minimal_client_does_its_round(transport: str, sockbus_broker: Broker) -> None:
    done = run(MINIMAL, sockbus_broker.addresses[transport])
    assert (done.code, done.err) == (0, "")
    read_back = (EXAMPLES / MINIMAL).read_text().splitlines()[0] in done.out
    assert read_back == (transport != "tcp")
    assert "[1, 1, 0, 0]" in done.out


# When something is missing


@pytest.mark.parametrize("arguments", RUNNING + ENDING, ids=" ".join)
def test_without_a_broker_each_says_so_in_one_line(arguments: tuple[str, ...], place: Path) -> None:
    done = run(*arguments, f"unix:{place}/bus")
    assert_one_complaint(done, arguments[0], f"sockbus broker unix:{place}/bus")


@pytest.mark.parametrize("name", ["uppercase_server.py", "uppercase_client.py"])
def test_tcp_port_without_a_broker_is_named(name: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp:127.0.0.1:{unused.getsockname()[1]}"
        assert_one_complaint(run(name, address), name, address)


@pytest.mark.parametrize("arguments", RUNNING, ids=" ".join)
def test_broker_that_stops_is_waited_for(arguments: tuple[str, ...], sockbus_broker: Broker) -> None:
    with running(*arguments, sockbus_broker.address) as program:
        sockbus_broker.stop()
        assert "the broker is stopping" in program.err.next()
        program.signal(signal.SIGINT)
        assert (program.code(), program.out.rest(), program.err.rest()) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("arguments", RUNNING, ids=" ".join)
def test_ctrl_c_ends_them_without_a_word(arguments: tuple[str, ...], sockbus_address: str) -> None:
    with running(*arguments, sockbus_address) as program:
        program.signal(signal.SIGINT)
        assert (program.code(), program.out.rest(), program.err.rest()) == (-signal.SIGINT, b"", b"")


# What they are


@pytest.mark.parametrize("name", NAMES)
def test_example_is_short_and_says_how_to_run_it(name: str) -> None:
    source = (EXAMPLES / name).read_text()
    assert len(source.splitlines()) <= (150 if name == MINIMAL else 59)
    assert f"python examples/{name}" in (ast.get_docstring(ast.parse(source)) or "")


def test_minimal_client_imports_nothing_of_sockbus() -> None:
    tree = ast.parse((EXAMPLES / MINIMAL).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    assert "sockbus" not in "".join(map(ast.unparse, imports))
