"""A broker at its limit of open files (EMFILE): it refuses, waits, and recovers, and spares who is there already."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sockbus.broker.quiet import BURST
from sockbus.protocol.frame import Kind
from tests.broker.conftest import TRANSPORTS
from tests.broker.outside import cpu_seconds, descriptors, eventually, log_lines
from tests.broker.raw import Raw, hello, open_files
from tests.brokers import BrokerProcess

MIB = 1 << 20


@pytest.fixture
def narrow() -> Iterator[BrokerProcess]:
    """A broker with room for a dozen more descriptors."""
    with BrokerProcess() as broker:
        room = len(descriptors(broker)) + 12
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (room, room))
        yield broker


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_broker_without_descriptors_refuses_and_neither_spins_nor_floods_its_log(
    transport: str, narrow: BrokerProcess
) -> None:
    address = narrow.address(transport)
    with ExitStack() as stack:
        near, far = stack.enter_context(Raw(narrow.stream)), stack.enter_context(Raw(narrow.stream))
        far.subscribe("full")
        held = [stack.enter_context(Raw(address, greet=False)) for _ in range(30)]
        used = cpu_seconds(narrow)
        # Ten a second are refused with the number that the broker keeps in reserve; the others wait in the backlog.
        refused = [peer for peer in held if _is_refused(peer)]
        assert 15 <= len(refused) < 30
        # In a second and a half at least.
        assert cpu_seconds(narrow) - used < 1.0
        for number in range(20):
            near.send(near.frame(Kind.PUBLISH, "full", bytes([number])))
            assert far.expect(Kind.PUBLISH).content == bytes([number])
        lines = log_lines(narrow)
        assert 1 <= len(lines) <= 2 * BURST
        for peer in held:
            peer.close()
        with Raw(address) as peer:
            peer.settle()
    assert all("cannot be accepted" in line or "reserve" in line for line in lines)


def _is_refused(peer: Raw) -> bool:
    """Whether a connection is refused for want of descriptors; one that was let in is told so by its WELCOME."""
    peer.send(hello(features=()))
    frame = peer.next()
    if frame is None:
        return True
    if frame.kind is Kind.ERROR:
        assert frame.body["code"] == "limit"
        assert "open files" in frame.body["text"]
        return True
    assert frame.kind is Kind.WELCOME
    return False


@pytest.mark.parametrize("transport", ["seqpacket", "stream"])
def test_fds_for_which_the_broker_has_no_room_end_their_sender_alone(transport: str, narrow: BrokerProcess) -> None:
    """MSG_CTRUNC: they are lost for good, and whoever sent them is told."""
    before = descriptors(narrow)
    with (
        Raw(narrow.stream) as near,
        Raw(narrow.stream) as far,
        Raw(narrow.address(transport)) as peer,
        open_files(16) as fds,
    ):
        far.subscribe("full")
        peer.send(peer.frame(Kind.PUBLISH, "full", fds=16), fds)
        (frame,) = [frame for frame in peer.until_end() if frame.kind is Kind.ERROR]
        assert (frame.body["code"], "MSG_CTRUNC" in frame.body["text"]) == ("limit", True)
        near.send(near.frame(Kind.PUBLISH, "full", b"\x01", fds=2), fds[:2])
        assert len(far.expect(Kind.PUBLISH).fds) == 2
    eventually(lambda: descriptors(narrow) == before)
    (line,) = log_lines(narrow)
    assert "MSG_CTRUNC" in line
