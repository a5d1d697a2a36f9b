"""The table of bad input against one broker, over every transport, while a healthy pair exchanges on each of them."""

from __future__ import annotations

import pytest

from sockbus.broker.quiet import BURST
from sockbus.protocol.frame import Kind, encode
from tests.broker.case import Case, Step, With
from tests.broker.cases import CASES
from tests.broker.conftest import TRANSPORTS
from tests.broker.healthy import HealthyPair
from tests.broker.outside import descriptors, eventually, log_lines
from tests.broker.raw import Raw, hello, open_files
from tests.brokers import BrokerProcess


def say(peer: Raw, step: Step) -> bool:
    if not isinstance(step, With):
        return peer.send(step)
    with open_files(step.files) as fds:
        return peer.send(step.data, [*fds, *([peer.sock.fileno()] if step.own_socket else [])])


ROWS = [pytest.param(name, case, id=f"{name}-{case.name}") for name in TRANSPORTS for case in CASES if name in case.on]


@pytest.mark.parametrize(("transport", "case"), ROWS)
def test_bad_input_is_answered_with_one_error_one_line_and_a_close(
    transport: str, case: Case, common: BrokerProcess, pairs: dict[str, HealthyPair]
) -> None:
    before, said = descriptors(common), len(log_lines(common))
    with Raw(common.address(transport), greet=case.greet) as peer:
        for step in case.build(peer):
            if not say(peer, step):
                break
        came = peer.until_end()
    errors = [frame.body["code"] for frame in came if frame.kind is Kind.ERROR and not frame.correlation]
    assert errors == ([] if case.code is None else [case.code])
    if errors:
        assert came[-1].kind is Kind.ERROR
        eventually(lambda: len(log_lines(common)) > said)
    pairs[transport].proceed()
    lines = log_lines(common)[said:]
    assert len(lines) == len(errors), lines
    for line in lines:
        assert "was sent away" in line
    eventually(lambda: descriptors(common) == before)


@pytest.mark.parametrize("transport", ["seqpacket", "stream"])
@pytest.mark.parametrize("declared", [0, 1])
def test_fds_before_the_handshake_never_arrive(transport: str, declared: int, common: BrokerProcess) -> None:
    """The kernel refuses them to their sender (SO_PASSRIGHTS, Linux 6.16), or the broker refuses their sender."""
    before = descriptors(common)
    with Raw(common.address(transport), greet=False) as peer, open_files(5) as fds:
        if peer.send(encode(Kind.HELLO, payload=hello()[26:], fds=declared), fds):
            (frame,) = peer.until_end()
            assert frame.body["code"] in ("protocol", "too-many-fds")
        else:
            # It may still introduce itself, and has what it could not send.
            peer.greet()
            assert peer.send(peer.frame(Kind.PUBLISH, "bad.input", fds=5), fds)
            peer.settle()
    eventually(lambda: descriptors(common) == before)


def test_repeated_bad_input_does_not_flood_the_log() -> None:
    with BrokerProcess() as broker:
        before = descriptors(broker)
        for _ in range(200):
            with Raw(broker.stream, greet=False) as peer:
                peer.send(b"garbage")
                assert [frame.body["code"] for frame in peer.until_end()] == ["protocol"]
        with Raw(broker.tcp, greet=False) as peer:
            peer.send(b"garbage")
            peer.until_end()
        eventually(lambda: descriptors(broker) == before)
        lines = log_lines(broker)
    assert sum("uid" in line for line in lines) == BURST
    # Another account is heard all the same.
    assert sum("host 127.0.0.1" in line for line in lines) == 1
    assert len(lines) == BURST + 1
