"""Who came and who went: events, wills, and the death of a process whose socket somebody else still holds."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sockbus.protocol.frame import Kind
from tests.broker.outside import descriptors, eventually, resident_bytes, status
from tests.broker.raw import SHUTDOWN, Raw, hello
from tests.brokers import ROOT, BrokerProcess, Program, environment

#: seconds in which the death of a process must have been noticed; an end of file never comes here
AT_ONCE = 5.0


def event(reader: Raw) -> tuple[str, dict[str, object]]:
    while (frame := reader.expect(Kind.PUBLISH)).sender:
        reader.passed.append(frame)
    return frame.topic.removeprefix("$SYS.peer."), frame.body


def event_of(reader: Raw, number: int, name: str) -> dict[str, object]:
    """The next event of this name about a peer; those about others are passed over."""
    while (found := event(reader))[0] != name or found[1]["id"] != number:
        continue
    return found[1]


def will(peer: Raw, topic: str, payload: bytes = b"\xc0", number: int = 901, flags: int = 0) -> None:
    assert peer.send(peer.frame(Kind.WILL, topic, payload, number, flags=flags))
    assert peer.expect(Kind.OK).correlation == number


class TestEvents:
    def test_event_tells_who_came_and_who_left(self, common: BrokerProcess, transport: str) -> None:
        with Raw(common.stream) as reader:
            reader.subscribe("$SYS.peer.*")
            with Raw(common.address(transport), greet=False) as peer:
                peer.send(hello(name="kitchen"))
                you = peer.expect(Kind.WELCOME).body
                about = {"id": you["peer"], **you["you"]}
                assert event_of(reader, you["peer"], "joined") == about
                assert about["name"] == "kitchen"
                peer.number = you["peer"]
                peer.send(peer.control(Kind.GOODBYE, {"text": "left"}))
                peer.until_end()
            assert event_of(reader, you["peer"], "left") == {**about, "reason": "left"}

    def test_event_tells_that_a_connection_broke(self, common: BrokerProcess, transport: str) -> None:
        with Raw(common.stream) as reader:
            reader.subscribe("$SYS.peer.left")
            with Raw(common.address(transport)) as peer:
                pass
            assert event_of(reader, peer.number, "left")["reason"] == "lost"

    def test_connection_that_breaks_inside_a_frame_is_lost(self, common: BrokerProcess) -> None:
        with Raw(common.stream) as reader, Raw(common.stream) as peer:
            reader.subscribe("$SYS.peer.left")
            peer.send(peer.frame(Kind.PUBLISH, "a")[:-1])
            peer.send(SHUTDOWN)
            assert event_of(reader, peer.number, "left")["reason"] == "lost"

    def test_event_tells_why_a_peer_was_sent_away(self, common: BrokerProcess, transport: str) -> None:
        with Raw(common.stream) as reader, Raw(common.address(transport)) as peer:
            reader.subscribe("$SYS.peer.left")
            peer.send(peer.control(Kind.UNSUBSCRIBE, correlation=7))
            reason = peer.expect(Kind.ERROR).body["text"]
            assert event_of(reader, peer.number, "left")["reason"] == reason == "subscription 7 does not exist"

    def test_who_was_never_welcomed_neither_comes_nor_goes(self, common: BrokerProcess) -> None:
        with Raw(common.stream) as reader:
            reader.subscribe("$SYS.peer.*")
            before = reader.welcome["peer"]
            with Raw(common.stream, greet=False) as silent:
                silent.send(b"garbage")
                silent.until_end()
            with Raw(common.stream) as peer:
                assert peer.number > before + 1
                while (found := event(reader))[1]["id"] != peer.number:
                    assert found[1]["id"] != before + 1

    @pytest.mark.parametrize(("group", "members"), [(None, [1]), ("g", [1, 5])])
    def test_reader_that_does_not_read_them_is_ended(self, group: str | None, members: list[int]) -> None:
        with BrokerProcess("--limit", "stall_seconds=1000") as broker, Raw(broker.stream) as reader:
            for number in members:
                reader.subscribe("$SYS.peer.joined", number, (1, 1 << 20, 1), group=group)
            reader.subscribe("$SYS.peer.joined", 3, (1 << 20, 1 << 30, 1))
            for count in range(len(members) + 4097):
                with Raw(broker.stream):
                    pass
                if count == len(members) + 4095:
                    # Each was given one, and as many wait as may.
                    assert reader.request("$SYS.status", 7)["totals"]["stalled"] == 0
            for number in members:
                error = reader.expect(Kind.ERROR)
                assert (error.correlation, error.body["code"]) == (number, "stalled")
                assert "4096" in error.body["text"]
            # What waited for a group is lost to its last member.
            fronts = [frame for frame in reader.passed if frame.kind is Kind.DELIVER and frame.correlation in members]
            told = [(frame.correlation, *frame.body) for frame in fronts]
            assert told == [*((number, 1, 0) for number in members), (members[-1], 0, 4097)]
            for number in members:
                reader.send(reader.control(Kind.UNSUBSCRIBE, correlation=number))
                assert reader.expect(Kind.OK).correlation == number
            # The other one goes on.
            with Raw(broker.stream) as peer:
                assert event_of(reader, peer.number, "joined")


class TestWill:
    def test_will_is_published_behind_all_that_its_peer_published(self, common: BrokerProcess, transport: str) -> None:
        with Raw(common.stream) as reader:
            reader.subscribe("will.>")
            with Raw(common.address(transport)) as peer:
                will(peer, "will.said", b"\x07")
                peer.send(b"".join(peer.frame(Kind.PUBLISH, "will.x", bytes([n])) for n in range(100)))
                peer.settle()
                peer.send(peer.frame(Kind.PUBLISH, "will.x", b"\x64"))
            frames = [reader.expect(Kind.PUBLISH) for _ in range(102)]
            assert [frame.content for frame in frames] == [bytes([n]) for n in range(101)] + [b"\x07"]
            assert {frame.sender for frame in frames} == {peer.number}
            assert frames[-1].topic == "will.said"
            assert reader.expect(Kind.GONE).correlation == peer.number

    def test_will_of_who_says_goodbye_is_not_published(self, common: BrokerProcess) -> None:
        with Raw(common.stream) as reader, Raw(common.stream) as peer:
            reader.subscribe("will.not")
            will(peer, "will.not")
            peer.send(peer.control(Kind.GOODBYE, {"text": "left"}))
            peer.until_end()
            reader.send(reader.frame(Kind.PUBLISH, "will.not", b"\x01"))
            assert reader.expect(Kind.PUBLISH).sender == reader.number

    def test_will_of_who_is_sent_away_is_published(self, common: BrokerProcess) -> None:
        with Raw(common.stream) as reader, Raw(common.stream) as peer:
            reader.subscribe("will.away")
            will(peer, "will.away", b"\x01")
            peer.send(peer.control(Kind.UNSERVE, correlation=7))
            assert reader.expect(Kind.PUBLISH).content == b"\x01"

    def test_later_will_takes_the_place_of_the_first(self, common: BrokerProcess) -> None:
        with Raw(common.stream) as reader, Raw(common.stream) as peer:
            reader.subscribe("will.later.*")
            will(peer, "will.later.a")
            will(peer, "will.later.b", b"\x02", 903)
            peer.close()
            frame = reader.expect(Kind.PUBLISH)
            assert (frame.topic, frame.content) == ("will.later.b", b"\x02")

    def test_no_will_is_published_when_the_broker_stops(self) -> None:
        with BrokerProcess() as broker, Raw(broker.stream) as reader, Raw(broker.stream) as peer:
            reader.subscribe("will.stop")
            reader.subscribe("$SYS.peer.*", 3)
            will(peer, "will.stop")
            broker.stop()
            assert not [frame for frame in reader.until_end() if frame.kind is Kind.PUBLISH]

    def test_will_that_a_slow_reader_has_not_taken_is_charged_to_its_account(self) -> None:
        with (
            BrokerProcess("--limit", "link_queue_bytes=1000") as broker,
            Raw(broker.stream) as reader,
            Raw(broker.stream) as peer,
        ):
            reader.subscribe("will.wait", credit=(1, 1, 1))
            reader.send(reader.frame(Kind.PUBLISH, "will.wait"))
            reader.expect(Kind.PUBLISH)
            will(peer, "will.wait", bytes(2000))
            peer.close()
            # A user who has left so much behind gets no window until it is gone.
            eventually(lambda: _window(broker) == 0)
            reader.send(reader.control(Kind.CREDIT, [1, 26 + 9 + 1, 0], correlation=1))
            assert reader.expect(Kind.PUBLISH).content == bytes(2000)
            eventually(lambda: _window(broker) > 0)


def _window(broker: BrokerProcess) -> int:
    with Raw(broker.stream) as peer:
        return int(peer.welcome["window"][0])


# The death of a process


@pytest.mark.parametrize("count", [0, 1, 3000])
@pytest.mark.parametrize("transport", ["seqpacket", "stream"])
def test_death_of_a_process_is_the_end_of_its_peer_whoever_holds_its_socket(
    common: BrokerProcess, transport: str, count: int
) -> None:
    before = descriptors(common)
    topic = f"orphan.{transport}{count}"
    arguments = [sys.executable, "-m", "tests.broker.orphan", common.address(transport), topic, str(count)]
    with Raw(common.stream) as reader, Program(arguments, stdin=subprocess.PIPE) as orphan:
        reader.subscribe("orphan.>", credit=(10_000, 1 << 30, 64))
        reader.subscribe("$SYS.peer.left", 3)
        number = int(orphan.out.next())
        reader.send(reader.frame(Kind.REQUEST, f"{topic}.ask", correlation=5))
        eventually(lambda: any(row["outstanding"] for row in status(common)["servers"]))
        stdin = orphan.process.stdin
        assert stdin is not None
        stdin.write(b"\n")
        stdin.flush()
        assert orphan.code() == -signal.SIGKILL
        died = time.monotonic()
        assert event_of(reader, number, "left")["reason"] == "lost"
        assert time.monotonic() - died < AT_ONCE
        said = [frame for frame in reader.passed if frame.kind is Kind.PUBLISH and frame.sender == number]
        assert [frame.content for frame in said[:count]] == [n.to_bytes(4, "big") for n in range(count)]
        assert [(frame.topic, frame.nfds) for frame in said[count:]] == [(f"{topic}.said", 1), (f"{topic}.will", 0)]
        lost = [frame for frame in reader.passed if frame.kind is Kind.ERROR]
        assert [(frame.correlation, frame.body["code"]) for frame in lost] == [(5, "responder-lost")]
        stdin.close()
    eventually(lambda: descriptors(common) == before)


def test_peer_that_dies_behind_with_its_answers_is_gone_all_the_same(common: BrokerProcess) -> None:
    """Its forked child holds the socket, and reads nothing: what waits for it to read must not wait for ever."""
    script = (
        "import os, signal, sys\n"
        "from sockbus.protocol.frame import Kind\n"
        "from tests.broker.raw import Raw\n"
        f"peer = Raw({common.stream!r})\n"
        "if not os.fork():\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "print(peer.number, flush=True)\n"
        "peer.sock.settimeout(2)\n"
        "try:\n"
        "    while True:\n"
        "        peer.send(peer.frame(Kind.REQUEST, 'nobody', correlation=1) * 100)\n"
        "except TimeoutError:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with Raw(common.stream) as reader, Program([sys.executable, "-c", script], stdin=subprocess.PIPE) as orphan:
        reader.subscribe("$SYS.peer.left")
        number = int(orphan.out.next())
        assert orphan.code() == -signal.SIGKILL
        assert event_of(reader, number, "left")["reason"] == "lost"


def test_process_that_died_before_its_hello_was_read_is_gone(common: BrokerProcess) -> None:
    script = (
        "import os, sys\n"
        "from tests.broker.raw import Raw, hello\n"
        f"peer = Raw({common.stream!r}, greet=False)\n"
        "if not os.fork():\n"
        "    sys.stdin.read(1)\n"
        "    peer.send(hello(name='late'))\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
    )
    with Raw(common.stream) as reader, Program([sys.executable, "-c", script], stdin=subprocess.PIPE) as orphan:
        reader.subscribe("$SYS.peer.left")
        assert orphan.code() == 0
        stdin = orphan.process.stdin
        assert stdin is not None
        stdin.write(b"x")
        stdin.flush()
        while (found := event(reader))[1]["name"] != "late":
            continue
        assert found[1]["reason"] == "lost"


def test_peer_is_served_where_no_pidfd_is_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, os\n"
        "def refuse(*_): raise OSError(errno.EMFILE, 'no more')\n"
        "os.pidfd_open = refuse\n"
        "import sockbus.broker.mortality\n"
        "sockbus.broker.mortality._SO_PEERPIDFD = 9999\n"
    )
    with BrokerProcess(env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}")) as broker, Raw(broker.stream) as reader:
        reader.subscribe("$SYS.peer.left")
        with Raw(broker.stream) as peer:
            assert not [target for target in descriptors(broker) if "pidfd" in target]
        assert event_of(reader, peer.number, "left")["reason"] == "lost"
        assert broker.log == ""


def test_links_that_come_and_go_leave_no_pidfd_and_no_memory(common: BrokerProcess) -> None:
    def come_and_go() -> None:
        for _ in range(300):
            with Raw(common.stream) as peer:
                will(peer, "will.flood", bytes(60_000))

    before = descriptors(common)
    come_and_go()
    eventually(lambda: descriptors(common) == before)
    size = resident_bytes(common)
    come_and_go()
    eventually(lambda: descriptors(common) == before)
    # 300 wills are 18 MB.
    assert resident_bytes(common) < size + (4 << 20)
