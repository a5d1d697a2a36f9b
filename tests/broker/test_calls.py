"""Requests that wait: who holds up whom, and how each of them ends."""

from __future__ import annotations

import pytest

from sockbus.protocol.frame import Flag, Kind
from tests.broker.outside import eventually, status
from tests.broker.raw import Frame, Raw, open_files, pieced
from tests.brokers import BrokerProcess


def ask(peer: Raw, topic: str, number: int, fds: int = 0) -> None:
    with open_files(fds) as files:
        peer.send(peer.frame(Kind.REQUEST, topic, b"\x01", number, fds=fds), files)


def ending(peer: Raw) -> Frame:
    return peer.expect(Kind.ANSWER, Kind.ERROR)


def wanted(broker: BrokerProcess, pattern: str) -> int:
    """Calls that the servers of a pattern have not answered."""
    return sum(server["outstanding"] for server in status(broker)["servers"] if server["pattern"] == pattern)


def test_request_with_fds_that_waits_holds_up_no_other(common: BrokerProcess) -> None:
    topic = "calls.mixed"
    with Raw(common.stream) as local, Raw(common.tcp) as remote, Raw(common.stream) as peer:
        local.serve(topic, concurrency=1)
        remote.serve(topic, concurrency=1)
        ask(peer, topic, 1, fds=1)
        assert local.expect(Kind.REQUEST).nfds == 1
        ask(peer, topic, 3, fds=1)
        ask(peer, topic, 5)
        call = remote.expect(Kind.CALL).correlation
        assert remote.expect(Kind.REQUEST).nfds == 0
        remote.send(remote.frame(Kind.REPLY, payload=b"\x02", correlation=call))
        assert ending(peer).correlation == 5


def test_request_with_fds_ends_with_the_last_server_that_could_take_it(common: BrokerProcess) -> None:
    topic = "calls.left"
    with Raw(common.stream) as local, Raw(common.tcp) as remote, Raw(common.stream) as peer:
        local.serve(topic, concurrency=1)
        remote.serve(topic, concurrency=1)
        ask(peer, topic, 1, fds=1)
        ask(peer, topic, 3, fds=1)
        local.expect(Kind.REQUEST)
        peer.settle()
        local.close()
        ends = {(frame.kind, frame.correlation, frame.body["code"]) for frame in (ending(peer), ending(peer))}
        assert ends == {(Kind.ERROR, 1, "responder-lost"), (Kind.ERROR, 3, "responder-lost")}


def test_requests_that_wait_are_handed_over_in_order(common: BrokerProcess, transport: str) -> None:
    topic = "calls.order"
    with Raw(common.address(transport)) as server, Raw(common.stream) as peer:
        server.serve(topic, concurrency=1)
        for number in range(1, 21, 2):
            peer.send(peer.frame(Kind.REQUEST, topic, bytes([number]), number))
        for number in range(1, 21, 2):
            call = server.expect(Kind.CALL).correlation
            assert server.expect(Kind.REQUEST).content == bytes([number])
            server.send(server.frame(Kind.REPLY, payload=bytes([number]), correlation=call))
            assert ending(peer).correlation == number
            assert peer.expect(Kind.REPLY).content == bytes([number])


def test_cancelled_request_that_waited_reaches_nobody(common: BrokerProcess) -> None:
    topic = "calls.cancelled"
    with Raw(common.stream) as server, Raw(common.stream) as peer:
        server.serve(topic, concurrency=1)
        for number in (1, 3, 5):
            peer.send(peer.frame(Kind.REQUEST, topic, bytes([number]), number))
        peer.send(peer.control(Kind.CANCEL, correlation=3))
        peer.settle()
        for number in (1, 5):
            call = server.expect(Kind.CALL).correlation
            assert server.expect(Kind.REQUEST).content == bytes([number])
            server.send(server.frame(Kind.REPLY, correlation=call))


@pytest.mark.parametrize("leave", ["cancel", "close"])
def test_topics_that_nobody_waits_on_any_more_are_forgotten(common: BrokerProcess, leave: str) -> None:
    """A server that is busy does not remember every topic that was ever asked for."""
    with Raw(common.stream) as server, Raw(common.stream) as first:
        server.serve("calls.many.*", concurrency=1)
        ask(first, "calls.many.x", 1)
        server.expect(Kind.REQUEST)
        with Raw(common.stream) as peer:
            for number in range(1, 400, 2):
                ask(peer, f"calls.many.t{number}", number)
                if leave == "cancel":
                    peer.send(peer.control(Kind.CANCEL, correlation=number))
            peer.settle()
        eventually(lambda: wanted(common, "calls.many.*") == 1)
        server.send(server.frame(Kind.REPLY, correlation=2))
        assert ending(first).correlation == 1
        ask(first, "calls.many.last", 3)
        server.expect(Kind.CALL)
        assert server.expect(Kind.REQUEST).topic == "calls.many.last"


def test_flush_between_pieces_is_answered_after_the_last(common: BrokerProcess, transport: str) -> None:
    with Raw(common.address(transport)) as peer:
        peer.subscribe("calls.pieces", number=9)
        first = peer.frame(Kind.PUBLISH, "calls.pieces", pieced(20, b"x" * 10), 1, flags=Flag.PIECED | Flag.RECEIPT)
        peer.send(first)
        peer.send(peer.control(Kind.FLUSH, correlation=3))
        peer.send(peer.control(Kind.UNSUBSCRIBE, correlation=9))
        # In the order of the answers: had the flush been answered, it would come first.
        assert peer.expect(Kind.OK).correlation == 9
        peer.send(peer.frame(Kind.PIECE, payload=b"x" * 10, correlation=1))
        assert peer.expect(Kind.RECEIPT, Kind.OK).kind is Kind.RECEIPT
        assert peer.expect(Kind.OK).correlation == 3


def test_flush_between_pieces_waits_for_the_credit_of_the_message(common: BrokerProcess) -> None:
    with Raw(common.stream) as peer:
        peer.subscribe("calls.credit", number=9, credit=(1, 1 << 20, 1))
        peer.send(peer.frame(Kind.PUBLISH, "calls.credit", b"\xc0"))
        peer.send(peer.frame(Kind.PUBLISH, "calls.credit", pieced(20, b"x" * 10), 1, flags=Flag.PIECED))
        peer.send(peer.control(Kind.FLUSH, correlation=3))
        peer.send(peer.frame(Kind.PIECE, payload=b"x" * 10, correlation=1))
        peer.request("$SYS.status")
        assert not [frame for frame in peer.passed if frame.kind is Kind.OK]
        peer.send(peer.control(Kind.CREDIT, [1, 0, 0], correlation=9))
        assert peer.expect(Kind.OK).correlation == 3


@pytest.mark.parametrize("transport", ["seqpacket", "stream"])
def test_server_holds_the_fds_of_so_many_calls_only(transport: str) -> None:
    """Sixty-four handlers with sixteen files each would be all that a process may open."""
    with (
        BrokerProcess("--limit", "link_fds=4") as broker,
        Raw(broker.address(transport)) as server,
        Raw(broker.stream) as first,
        Raw(broker.stream) as second,
    ):
        server.serve("files")
        ask(first, "files", 1, fds=3)
        ask(first, "files", 3, fds=3)
        server.send(server.control(Kind.RECEIVED, 0))
        assert [server.expect(Kind.REQUEST).nfds, server.expect(Kind.REQUEST).nfds] == [3, 3]
        server.send(server.control(Kind.RECEIVED, 6))
        ask(second, "files", 1, fds=1)
        second.settle()
        server.request("$SYS.status")
        assert not [frame for frame in server.passed if frame.kind is Kind.REQUEST]
        server.send(server.frame(Kind.REPLY, correlation=2))
        assert server.expect(Kind.REQUEST).nfds == 1
