"""A full record of the smallest frames, on the transport where it is one."""

from __future__ import annotations

from sockbus.protocol.frame import MAX_FRAME, Kind
from tests.broker.raw import Raw
from tests.brokers import BrokerProcess


def test_record_of_many_frames_is_as_good_as_many_records(common: BrokerProcess) -> None:
    with Raw(common.seqpacket) as peer:
        peer.subscribe("records", credit=(1 << 20, 1 << 30, 1))
        frame = peer.frame(Kind.PUBLISH, "records", b"\x01")
        count = MAX_FRAME // len(frame)
        peer.send(frame * count)
        came = 0
        while came < count:
            came += peer.expect(Kind.PUBLISH).content == b"\x01"
        peer.settle()
