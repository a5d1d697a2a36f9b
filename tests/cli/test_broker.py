"""``broker`` as a process: what it prints, how it is configured, and how it ends."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from sockbus.cli import main
from tests.brokers import BrokerProcess, Program, command, environment, run


def lines_of(program: Program, count: int) -> list[str]:
    return [program.out.next() for _ in range(count)]


# Beginning


def test_listening_is_printed_for_each_address_as_given_with_the_port_as_bound(place: Path) -> None:
    given = [f"unix:{place}/./bus", "tcp:localhost:0", f"stream:{place}/one", f"seqpacket:{place}/two"]
    with Program(command("broker", *given)) as program:
        printed = lines_of(program, 4)
        assert [printed[0], *printed[2:]] == [f"listening on {each}" for each in (given[0], *given[2:])]
        assert re.fullmatch(r"listening on tcp:localhost:[1-9][0-9]*", printed[1])
        for line in printed:
            assert run("pub", "a", "--address", line.removeprefix("listening on ")).code == 0
        program.signal(signal.SIGTERM)
        assert program.code() == 0
        assert program.out.rest() == b""
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"SOCKBUS_ADDRESS": "stream:{place}/socket"}, "stream:{place}/socket"),
        ({"XDG_RUNTIME_DIR": "{place}"}, "unix:{place}/sockbus"),
    ],
)
def test_address_is_the_users_own_unless_given(variables: dict[str, str], address: str, place: Path) -> None:
    env = environment(**{name: value.format(place=place) for name, value in variables.items()})
    with Program(command("broker"), env=env) as program:
        assert program.out.next() == f"listening on {address.format(place=place)}"
        assert run("status", env=env).code == 0
        program.signal(signal.SIGINT)
        assert program.code() == 0


def test_option_address_is_one_more(place: Path) -> None:
    with Program(command("--address", f"unix:{place}/b", "broker", f"unix:{place}/a")) as program:
        assert lines_of(program, 2) == [f"listening on unix:{place}/a", f"listening on unix:{place}/b"]


def test_ready_is_written_once_all_listen_and_the_descriptor_closed(place: Path) -> None:
    receive, send = os.pipe()
    with (
        open(receive, "rb") as ready,
        Program(command("broker", f"unix:{place}/a", f"unix:{place}/b", "--ready-fd", str(send)), pass_fds=[send]),
    ):
        os.close(send)
        assert ready.read() == b"ready\n"  # to the end of the file: nobody holds it any more
        for name in "ab":
            assert run("pub", "x", "--address", f"unix:{place}/{name}").code == 0


def test_ready_descriptor_whose_reader_has_gone_costs_a_line_in_the_log(place: Path) -> None:
    receive, send = os.pipe()
    os.close(receive)
    with Program(command("broker", f"unix:{place}/a", "--ready-fd", str(send)), pass_fds=[send]) as program:
        os.close(send)
        assert "was not written" in program.err.next()
        assert run("pub", "x", "--address", f"unix:{place}/a").code == 0


def test_closed_standard_descriptors_are_no_reason_to_end(place: Path) -> None:
    script = 'exec "$@" <&- >&- 2>&-'
    receive, send = os.pipe()
    with (
        open(receive, "rb") as ready,
        Program(
            ["sh", "-c", script, "sh", *command("broker", f"unix:{place}/a", "--ready-fd", str(send))], pass_fds=[send]
        ) as program,
    ):
        os.close(send)
        assert ready.read() == b"ready\n"
        assert run("status", "--address", f"unix:{place}/a").code == 0
        program.signal(signal.SIGTERM)
        assert program.code() == 0


def test_stdout_whose_reader_has_gone_is_no_reason_to_end(place: Path) -> None:
    with Program(command("broker", f"unix:{place}/a", f"unix:{place}/b")) as program:
        assert program.process.stdout is not None
        program.process.stdout.close()
        for _ in range(2):
            assert "was not printed: the reader of standard output has gone" in program.err.next()
        assert run("pub", "x", "--address", f"unix:{place}/b").code == 0
        program.signal(signal.SIGTERM)
        assert program.code() == 0


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_lifeline_that_nobody_holds_any_more_stops_it_quietly(kind: str, place: Path) -> None:
    ours: int
    if kind == "pipe":
        theirs, ours = os.pipe()
    else:
        ours, theirs = (each.detach() for each in socket.socketpair())
    with (
        open(ours, "wb", buffering=0) as held,
        Program(command("broker", f"unix:{place}/a", "--lifeline-fd", str(theirs)), pass_fds=[theirs]) as program,
    ):
        os.close(theirs)
        program.out.next()
        held.write(b"what is said on it is nobody's business")
        with Program(command("sub", "x", "--address", f"unix:{place}/a")) as sub:
            sub.err.next()
            held.close()
            assert program.code() == 0
            assert "stopping" in sub.err.next()
        assert program.err.rest() == b""
    assert list(place.iterdir()) == []


def test_lifeline_that_ended_before_it_listens_stops_it_all_the_same(place: Path) -> None:
    theirs, ours = os.pipe()
    os.close(ours)
    with Program(command("broker", f"unix:{place}/a", "--lifeline-fd", str(theirs)), pass_fds=[theirs]) as program:
        os.close(theirs)
        assert program.code() == 0
    assert list(place.iterdir()) == []


# Configuration


def test_limits_are_set_by_options_and_by_the_file_and_options_win(place: Path) -> None:
    config = place / "sockbus.toml"
    config.write_text(f'addresses = ["unix:{place}/bus"]\n[limits]\nmessage_bytes = 1000\nheader_keys = 3\n')
    with Program(command("broker", "--config", str(config), "--limit", "message_bytes=500")) as program:
        assert program.out.next() == f"listening on unix:{place}/bus"
        page = run("status", "--address", f"unix:{place}/bus").out
        assert re.search(r"message_bytes +500\n", page)
        assert re.search(r"header_keys +3\n", page)
        done = run("pub", "a", "-", "--address", f"unix:{place}/bus", stdin=b"x" * 500)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "message_bytes = 500" in done.err


def test_as_many_files_are_open_as_the_system_lets_it(place: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = ["sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh"]
    with Program([*low, *command("broker", f"unix:{place}/bus")]) as program:
        assert program.out.next() == f"listening on unix:{place}/bus"
        assert resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        assert re.search(rf"total_fds +{hard // 4}\n", run("status", "--address", f"unix:{place}/bus").out)


def test_addresses_of_the_command_line_replace_those_of_the_file(place: Path) -> None:
    config = place / "sockbus.toml"
    config.write_text(f'addresses = ["unix:{place}/file"]\n')
    with Program(command("broker", f"unix:{place}/line", "--config", str(config))) as program:
        assert program.out.next() == f"listening on unix:{place}/line"
        program.signal(signal.SIGTERM)
        assert program.out.rest() == b""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--limit", "message_bytes"], "message_bytes"),
        (["--limit", "message_bytes=0"], "message_bytes"),
        (["--limit", "message_bytes=-1"], "message_bytes"),
        (["--limit", "message_bytes=1.5"], "message_bytes"),
        (["--limit", "message_fds=254"], "message_fds"),
        (["--limit", "speed=1"], "speed"),
        (["--limit", "link_fds=" + 5000 * "9"], "link_fds"),
        (["--config", "{place}/digits.toml"], "digits.toml"),
        (["--config", "{place}/deep.toml"], "deep.toml"),
        (["--config", "{place}/none.toml"], "none.toml"),
        (["--config", "{place}"], "directory"),
        (["--config", "{place}/bad.toml"], "bad.toml"),
        (["--config", "{place}/odd.toml"], "colour"),
        (["--config", "{place}/address.toml"], "udp:1"),
        (["--config", "{place}/limit.toml"], "link_fds"),
        (["--ready-fd", "987654321"], "987654321"),
        (["--ready-fd", "2"], "'2'"),
        (["--lifeline-fd", "987654321"], "987654321"),
        (["--lifeline-fd", "{pipe}"], "writing only"),
        (["--lifeline-fd", "{file}"], "a pipe or socket"),
        (["--lifeline-fd", "{socket}", "--ready-fd", "{socket}"], "for nothing else"),
        (["tcp:0.0.0.0:0"], "--insecure-tcp"),
        (["udp:1"], "udp:1"),
    ],
)
def test_setting_that_cannot_be_is_a_usage_error_on_one_line(
    options: list[str], named: str, place: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (place / "bad.toml").write_text("= 1")
    (place / "odd.toml").write_text('colour = "red"')
    (place / "digits.toml").write_text(f"[limits]\nlink_fds = {5000 * '9'}")
    (place / "deep.toml").write_text("x = " + 5000 * "[")
    (place / "address.toml").write_text('addresses = ["udp:1"]')
    (place / "limit.toml").write_text('[limits]\nlink_fds = "many"')
    receive, send = os.pipe()
    with socket.socket() as sock, open(os.devnull, "rb") as file, open(receive, "rb"), open(send, "wb"):
        names = {"place": place, "pipe": send, "file": file.fileno(), "socket": sock.fileno()}
        assert main(["broker", f"unix:{place}/bus", *(each.format(**names) for each in options)]) == 2
    out, err = capfdbinary.readouterr()
    assert (out, err.count(b"\n")) == (b"", 1)
    assert named in err.decode()
    assert not (place / "bus").exists()


def test_address_in_the_environment_that_is_none_is_a_usage_error() -> None:
    done = run("broker", env=environment(SOCKBUS_ADDRESS="somewhere"))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "$SOCKBUS_ADDRESS" in done.err


def test_ready_descriptor_that_is_only_read_is_a_usage_error(place: Path) -> None:
    with open(os.devnull, "rb") as file:
        number = file.fileno()
        with Program(command("broker", f"unix:{place}/a", "--ready-fd", str(number)), pass_fds=[number]) as program:
            assert program.code() == 2
            assert b"reading only" in program.err.rest()


def test_insecure_tcp_lets_other_than_loopback_be_served() -> None:
    with Program(command("broker", "tcp:0.0.0.0:0", "--insecure-tcp")) as program:
        assert program.out.next().startswith("listening on tcp:0.0.0.0:")


# Who serves an address


def test_second_broker_names_address_and_holder_and_disturbs_nothing(broker: BrokerProcess) -> None:
    with Program(command("sub", "a", "--address", broker.unix)) as sub:
        sub.err.next()
        for address in (broker.unix, broker.tcp):
            done = run("broker", address)
            assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
            assert address in done.err
            if address == broker.unix:
                assert f"pid {broker.pid}" in done.err
        assert run("pub", "a", "still here", "--address", broker.seqpacket).code == 0
        assert sub.out.next() == "a still here"


def test_broker_that_fails_on_its_last_address_leaves_nothing_of_the_first(broker: BrokerProcess, place: Path) -> None:
    done = run("broker", f"unix:{place}/first", f"stream:{place}/one", broker.unix)
    assert (done.code, done.out) == (1, "")
    assert list(place.iterdir()) == []


def test_stale_sockets_are_replaced_and_the_port_is_bound_again_at_once(broker: BrokerProcess) -> None:
    before = broker.tcp
    with Program(command("sub", "a", "--address", broker.tcp)) as sub:
        sub.err.next()
        broker.kill()
        assert "was lost" in sub.err.next()
    assert (broker.directory / "stream").is_socket()
    broker.start()
    assert broker.tcp == before
    for transport in ("seqpacket", "stream", "tcp"):
        assert run("pub", "a", "--address", broker.address(transport)).code == 0


@pytest.mark.parametrize("address", ["stream:{place}/thing", "seqpacket:{place}/thing", "unix:{place}/thing"])
def test_file_that_is_not_a_socket_is_left_alone(address: str, place: Path) -> None:
    thing = place / "thing"
    thing.write_text("precious")
    done = run("broker", address.format(place=place))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(thing) in done.err
    assert thing.read_text() == "precious"
    assert list(place.iterdir()) == [thing]


@pytest.mark.parametrize(("address", "name"), [("unix:{place}", "stream.lock"), ("stream:{place}/yarn", "yarn.lock")])
def test_lock_file_that_is_not_a_brokers_is_left_alone(address: str, name: str, place: Path) -> None:
    thing = place / name
    thing.write_text("precious")
    done = run("broker", address.format(place=place))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(thing) in done.err
    assert thing.read_text() == "precious"
    assert list(place.iterdir()) == [thing]


@pytest.mark.parametrize("name", ["seqpacket", "stream"])
def test_file_in_the_bus_directory_that_is_not_a_socket_is_left_alone(name: str, place: Path) -> None:
    thing = place / name
    thing.write_text("precious")
    done = run("broker", f"unix:{place}")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(thing) in done.err
    assert thing.read_text() == "precious"
    assert list(place.iterdir()) == [thing]


@pytest.mark.parametrize(
    "address", ["unix:{place}/none/bus", "stream:{place}/none/socket", "tcp:no-such-host.invalid:1"]
)
def test_address_that_cannot_be_served_is_named(address: str, place: Path) -> None:
    given = address.format(place=place)
    done = run("broker", given, "--insecure-tcp")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert given in done.err


# End


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_with_a_goodbye_and_no_trace(broker: BrokerProcess, number: signal.Signals) -> None:
    with Program(command("sub", "a", "--address", broker.unix)) as sub:
        sub.err.next()
        broker.stop(number)
        assert "stopping" in sub.err.next()
    assert not broker.directory.exists()
    assert len(broker.printed) == 2


def test_second_signal_ends_it_while_it_waits_for_a_peer_that_does_not_read(place: Path) -> None:
    with Program(command("broker", f"unix:{place}/bus")) as program:
        program.out.next()
        with Program(command("sub", "a", "--address", f"unix:{place}/bus")) as sub:
            sub.err.next()
            sub.signal(signal.SIGSTOP)
            for _ in range(3):
                run("pub", "a", "-", "--address", f"unix:{place}/bus", stdin=b"x" * 300_000)
            program.signal(signal.SIGTERM)
            assert "stopping" in program.err.next()
            program.signal(signal.SIGTERM)
            assert program.code() == 0
    assert list(place.iterdir()) == []


def test_log_that_nobody_reads_does_not_stop_it(place: Path) -> None:
    receive, send = os.pipe()
    with open(receive, "rb") as unread:
        os.set_blocking(send, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(send, b"x" * 4096)
        os.set_blocking(send, True)
        process = subprocess.Popen(
            command("broker", f"stream:{place}/socket"), stdout=subprocess.PIPE, stderr=send, env=environment()
        )
        os.close(send)
        with process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"listening on stream:{place}/socket\n".encode()
                for _ in range(2):
                    with socket.socket(socket.AF_UNIX) as peer:
                        peer.connect(f"{place}/socket")
                        peer.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(64))
                        assert peer.recv(4096) != b""
                assert run("pub", "a", "--address", f"stream:{place}/socket").code == 0
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            finally:
                process.kill()
        assert unread.read().rstrip(b"x") == b""
