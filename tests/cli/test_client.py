"""``pub``, ``sub``, ``request`` and ``status`` as processes, against a broker process: what they are for."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from pathlib import Path

import msgpack
import pytest

from tests.brokers import BrokerProcess, Program, command, environment, run
from tests.cli.programs import publish, subscriber

TRANSPORTS = ["seqpacket", "stream", "tcp"]


# From pub to sub


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_message_goes_from_pub_to_sub(bus: BrokerProcess, transport: str) -> None:
    topic = f"by.{transport}"
    with subscriber(bus, topic, "--count", "1", address=bus.address(transport)) as sub:
        assert publish(bus, topic, '{"a": [1, "b"]}', address=bus.address(transport)) == ""
        assert sub.out.rest() == f'{topic} {{"a": [1, "b"]}}\n'.encode()
        assert sub.code() == 0
        assert sub.err.rest() == b""


PAYLOADS: list[tuple[list[str], bytes, str]] = [
    ([], b"", "null"),
    (["text with blanks"], b"", "text with blanks"),
    (["5"], b"", "5"),
    (["-"], b'{"from": "stdin"}\n', '{"from": "stdin"}'),
    (["-"], b"two\nlines\n", "two\\nlines"),
    (["-"], b"", ""),
    (["--raw", "5"], b"", "b'5'"),
    (["--raw", "-"], b"\x00\xff\n", "b'\\x00\\xff\\n'"),
    (["\x1b[2J\x07red"], b"", "\\u001b[2J\\u0007red"),
]


def test_payload_is_printed_on_one_line(bus: BrokerProcess) -> None:
    with subscriber(bus, "shown.>", "--count", str(len(PAYLOADS))) as sub:
        for arguments, stdin, shown in PAYLOADS:
            publish(bus, "shown.here", *arguments, stdin=stdin)
            assert sub.out.next() == f"shown.here {shown}"
        assert sub.code() == 0


def test_fds_are_shown_with_kind_and_size(bus: BrokerProcess, place: Path) -> None:
    (place / "file").write_bytes(b"12345")
    os.mkfifo(place / "fifo")
    paths = [str(place / "file"), str(place), "/dev/null", str(place / "fifo")]
    options = [part for path in paths for part in ("--fd", path)]
    with subscriber(bus, "fds.plain", "--count", "1") as sub:
        publish(bus, "fds.plain", "x", *options)
        expected = "fds.plain x [fd: file 5] [fd: directory -] [fd: device -] [fd: pipe -]\n"
        assert sub.out.rest().decode() == expected


def test_json_form_is_one_object_a_line(bus: BrokerProcess, place: Path) -> None:
    (place / "file").write_bytes(b"12345")
    with subscriber(bus, "json.*", "--json", "--count", "2") as sub:
        publish(bus, "json.a", "--raw", "x\n", "--fd", str(place / "file"), "--header", "n=1", "--header", "s=one")
        publish(bus, "json.b", "[null]")
        first, second = map(json.loads, sub.out.rest().splitlines())
    keys = ["topic", "payload", "headers", "sender", "fds", "fds_missing", "lost", "retained", "interrupted"]
    assert list(first) == keys
    assert first["topic"] == "json.a"
    assert base64.b64decode(first["payload"]["base64"]) == b"x\n"
    assert first["headers"] == {"n": 1, "s": "one"}
    assert first["fds"] == [{"kind": "file", "size": 5}]
    assert (first["sender"]["name"], first["sender"]["uid"]) == ("sockbus pub", os.getuid())
    assert (second["payload"], second["fds"], second["fds_missing"], second["lost"]) == ([None], [], 0, 0)


def test_kept_value_comes_first_and_is_marked(bus: BrokerProcess, place: Path) -> None:
    (place / "file").write_bytes(b"12345")
    publish(bus, "kept.a", "1", "--retain", "--fd", str(place / "file"))
    publish(bus, "kept.b", "2", "--retain", "--receipt")
    with subscriber(bus, "kept.*", "--count", "3") as sub:
        publish(bus, "kept.a", "live")
        assert sub.out.rest().decode() == "kept.a 1 [fd: file 5] [retained]\nkept.b 2 [retained]\nkept.a live\n"
    publish(bus, "kept.a", "--retain")
    with subscriber(bus, "kept.*", "--json", "--count", "2") as sub:
        publish(bus, "kept.b", "3")
        found = [(line["payload"], line["retained"]) for line in map(json.loads, sub.out.rest().splitlines())]
        assert found == [(2, True), (3, False)]
    publish(bus, "kept.b", "--retain")


def test_value_that_cannot_be_kept_is_a_failure() -> None:
    with BrokerProcess("--limit", "retained=0") as broker:
        done = run("pub", "a", "1", "--retain", "--address", broker.unix)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert "retained = 0" in done.err


def test_raw_form_is_the_payloads_and_nothing_else(bus: BrokerProcess) -> None:
    with subscriber(bus, "raw", "--raw", "--count", "3") as sub:
        publish(bus, "raw", "--raw", "-", stdin=b"\x00\xff\n")
        publish(bus, "raw", "text")
        publish(bus, "raw", "[1]")
        assert sub.out.rest() == b"\x00\xff\ntext[1]"


def test_receipt_tells_what_became_of_the_message(bus: BrokerProcess) -> None:
    assert publish(bus, "unheard", "--receipt") == "matched 0 delivered 0 dropped 0 without_fds 0\n"
    with subscriber(bus, "heard", "--count", "1"):
        assert publish(bus, "heard", "--receipt", "x") == "matched 1 delivered 1 dropped 0 without_fds 0\n"


def test_message_with_fds_is_lost_over_tcp_and_both_sides_are_told(bus: BrokerProcess) -> None:
    with subscriber(bus, "over.tcp", "--count", "1", address=bus.tcp) as sub:
        out = publish(bus, "over.tcp", "lost", "--receipt", "--fd", "/dev/null")
        assert out == "matched 1 delivered 0 dropped 0 without_fds 1\n"
        publish(bus, "over.tcp", "next")
        assert sub.out.rest() == b"over.tcp next\n"
        assert sub.err.rest() == b"sockbus: lost 1 message of over.tcp before the next on over.tcp\n"


def test_json_form_tells_losses_in_its_objects(bus: BrokerProcess) -> None:
    with subscriber(bus, "over.tcp", "--json", "--count", "1", address=bus.tcp) as sub:
        publish(bus, "over.tcp", "lost", "--fd", "/dev/null")
        publish(bus, "over.tcp", "seen")
        assert json.loads(sub.out.rest())["lost"] == 1
        assert sub.err.rest() == b""


def test_strip_delivers_over_tcp_without_the_fds(bus: BrokerProcess) -> None:
    with subscriber(bus, "stripped", "--fds", "strip", "--json", "--count", "1", address=bus.tcp) as sub:
        publish(bus, "stripped", "kept", "--fd", "/dev/null", "--fd", "/dev/null")
        found = json.loads(sub.out.rest())
    assert (found["payload"], found["fds"], found["fds_missing"]) == ("kept", [], 2)


def test_fds_over_tcp_are_refused_to_their_publisher(bus: BrokerProcess) -> None:
    done = run("pub", "a", "--fd", "/dev/null", "--address", bus.tcp)
    assert (done.code, done.out) == (1, "")
    assert "carries no file descriptors (given: 1); pass them over a UNIX socket" in done.err
    assert done.err.count("\n") == 1


def test_group_shares_its_messages(bus: BrokerProcess) -> None:
    with (
        subscriber(bus, "work", "--group", "g", "--count", "2") as one,
        subscriber(bus, "work", "--group", "g", "--count", "2") as other,
    ):
        for number in range(4):
            publish(bus, "work", str(number))
        lines = one.out.rest().splitlines() + other.out.rest().splitlines()
    assert sorted(lines) == [b"work 0", b"work 1", b"work 2", b"work 3"]


def test_count_prints_no_more_than_that(bus: BrokerProcess) -> None:
    with subscriber(bus, "many.>", "--count", "2") as sub:
        for number in range(3):
            publish(bus, f"many.{number}", "x")
        assert sub.out.rest() == b"many.0 x\nmany.1 x\n"
        assert sub.code() == 0


@pytest.mark.parametrize(("options", "code", "complaint"), [([], 0, ""), (["--count", "2"], 1, "0 of 2 messages")])
def test_timeout_ends_a_subscription(bus: BrokerProcess, options: list[str], code: int, complaint: str) -> None:
    with subscriber(bus, "silent", "--timeout", "0.01", *options) as sub:
        assert sub.code() == code
        assert sub.out.rest() == b""
        assert complaint in sub.err.rest().decode()


def test_unreadable_payload_of_one_peer_does_not_end_a_subscription(bus: BrokerProcess) -> None:
    with subscriber(bus, "hostile", "--count", "2") as sub:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.connect(bus.stream.removeprefix("stream:"))
            peer.sendall(frame(1, 0, b"", msgpack.packb({"version": 1, "features": [], "name": None})))
            with peer.makefile("rb") as stream:
                length = int.from_bytes(stream.read(6)[1:5])
                sender = msgpack.unpackb(stream.read(length)[20:])["peer"]
            peer.sendall(frame(32, sender, b"hostile", b"\xc1\xc1"))
            assert sub.out.next() == 'hostile {"msgpack": "wcE="}'
        publish(bus, "hostile", "fine")
        assert sub.out.next() == "hostile fine"
        assert sub.code() == 0
        assert sub.err.rest().count(b"\n") == 1


def frame(kind: int, sender: int, topic: bytes, body: bytes) -> bytes:
    """One frame as docs/wire.md has it."""
    rest = bytes([kind, 0, 0, len(topic)]) + sender.to_bytes(8) + bytes(8) + topic + body
    return b"\xc9" + len(rest).to_bytes(4) + b"\x53" + rest


# request, status


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_request_prints_the_reply(bus: BrokerProcess, transport: str) -> None:
    with Program(command("reply", "echo.*", "--echo", "--address", bus.address(transport))) as server:
        assert server.err.next() == "serving echo.*"
        done = run("request", "echo.me", '{"a": 1}', "--address", bus.address(transport))
        assert done == (0, '{"a": 1}\n', "")


def test_reply_comes_in_each_form(bus: BrokerProcess, place: Path) -> None:
    (place / "file").write_bytes(b"12345")
    with Program(command("reply", "forms", "--echo", "--address", bus.unix)) as server:
        server.err.next()
        options = ["--address", bus.unix, "--fd", str(place / "file")]
        assert run("request", "forms", "-", *options, stdin=b"a\n\x1bb\n\n").out == "a\n\\u001bb\n [fd: file 5]\n"
        assert run("request", "forms", "a\n", "--address", bus.unix).out == "a\n"
        assert run("request", "forms", "--raw", "a\n", *options).out == "a\n"
        found = json.loads(run("request", "forms", "text", "--json", *options).out)
    assert (found["payload"], found["fds"]) == ("text", [{"kind": "file", "size": 5}])
    assert found["sender"]["name"] == "sockbus reply"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["request", "unserved"], "nobody serves 'unserved'"),
        (["request", "$SYS.nothing"], "$SYS.nothing"),
        (["pub", "$SYS.status", "x"], "belongs to the broker"),
        (["pub", "a", "9" * 100], "cannot be encoded"),
        (["pub", "a", "--header", f"k={'v' * 5000}"], "header_bytes"),
        (["pub", "a", *(["--fd", "/dev/null"] * 17)], "message_fds"),
        (["pub", "a", "--fd", "/nowhere/at all"], "/nowhere/at all"),
        (["pub", "a", "-"], "--raw"),
    ],
)
def test_what_fails_says_why_on_one_line(bus: BrokerProcess, arguments: list[str], named: str) -> None:
    done = run(*arguments, "--address", bus.unix, stdin=b"\xff")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("sockbus: ")
    assert done.err.count("\n") == 1
    assert named in done.err


def test_request_that_nobody_answers_in_time_names_topic_and_time(bus: BrokerProcess) -> None:
    with Program(command("reply", "slow", "--address", bus.unix, "--exec", "sleep", "1000")) as server:
        assert server.err.next() == "serving slow"
        done = run("request", "slow", "--timeout", "0.05", "--address", bus.unix)
        assert (done.code, done.out) == (1, "")
        assert "'slow' within 0.05 s" in done.err


def test_status_shows_the_broker_and_its_peers(bus: BrokerProcess) -> None:
    with subscriber(bus, "watched.>", "--group", "g"):
        page = run("status", "--address", bus.unix)
        found = json.loads(run("status", "--json", "--address", bus.tcp).out)
    assert (page.code, page.err) == (0, "")
    for word in ("peers: ", "sockbus sub", "watched.>", "servers: 0", "message_bytes", "held", str(bus.pid), bus.tcp):
        assert word in page.out
    assert found["broker"]["pid"] == bus.pid
    assert found["broker"]["addresses"] == [bus.unix, bus.tcp]
    assert [peer["name"] for peer in found["peers"]] == ["sockbus sub", "sockbus status"]
    assert [(each["pattern"], each["group"]) for each in found["subscriptions"]] == [("watched.>", "g")]
    assert found["peers"][1]["pid"] is None
    assert {"servers", "rates", "queues", "fds", "limits"} <= found.keys()


# Ends


def test_no_broker_is_told_with_the_command_that_starts_one(place: Path) -> None:
    for verb in (["pub", "a"], ["sub", "a"], ["request", "a"], ["reply", "a", "--echo"], ["status"]):
        done = run(*verb, env=environment(SOCKBUS_ADDRESS=f"unix:{place}/bus"))
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"sockbus: no broker at unix:{place}/bus (")
        assert done.err.endswith(f"start one with: sockbus broker unix:{place}/bus\n")
        assert done.err.count("\n") == 1


def test_broker_that_is_started_again_is_found_again(broker: BrokerProcess) -> None:
    serving = Program(command("reply", "a", "--echo", "--address", broker.unix))
    with subscriber(broker, "b", "--count", "2") as sub, serving:
        serving.err.next()
        publish(broker, "b", "1")
        assert sub.out.next() == "b 1"
        broker.kill()
        for program in (sub, serving):
            assert re.fullmatch(r"sockbus: the connection to \S+ was lost: .*", program.err.next())
        with Program(command("pub", "b", "2", "--address", broker.unix)) as early:
            assert early.code() == 1  # the first connection is tried once
        broker.start()
        for program in (sub, serving):
            assert re.fullmatch(r"sockbus: connected again to \S+", program.err.next())
        assert run("request", "a", "echo", "--address", broker.unix).out == "echo\n"
        publish(broker, "b", "3")
        assert sub.out.next() == "b 3"
        assert sub.err.next().startswith("sockbus: the connection was lost before the next on b;")
        assert sub.code() == 0
