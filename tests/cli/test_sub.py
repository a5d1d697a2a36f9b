"""How ``sub`` ends, and what it does about a reader that does not read."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from sockbus.blocking import connect
from sockbus.cli.outcome import ReaderGone
from sockbus.cli.parser import parse_arguments
from sockbus.cli.sub import Printer
from sockbus.client.client import LEAVE_SECONDS
from sockbus.message import Message, Peer
from tests.broker.outside import eventually
from tests.brokers import PATIENCE, BrokerProcess, Program, command, environment
from tests.cli.programs import publish, subscriber

PEER = Peer(1, None, "tcp", None, None, None)


class Batches:
    """A subscription with these batches, and losses behind them; then nothing comes, or it is left."""

    lost = 3

    def __init__(self, *batches: list[Message], is_left: bool = False) -> None:
        self._batches = list(batches)
        self._is_left = is_left

    def batches(self, *, timeout: float | None) -> Iterator[list[Message]]:
        if self._batches:
            yield self._batches.pop(0)
        elif not self._is_left:
            raise TimeoutError


def printer(arguments: Sequence[str], subscription: Batches) -> Printer:
    background = contextlib.nullcontext
    return Printer(parse_arguments(["sub", "a", *arguments]), subscription, background)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["--json", "--raw"])
def test_losses_with_no_message_behind_them_are_told_at_the_end(
    form: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    printer([form, "--timeout", "5"], Batches([Message("a", b"\x01", PEER, lost=1)])).run()
    assert capfdbinary.readouterr().err.splitlines()[-1] == b"sockbus: lost 2 messages of a"


def test_subscription_that_was_left_meanwhile_has_lost_its_reader(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(ReaderGone):
        printer([], Batches([Message("a", b"\x01", PEER)], is_left=True)).run()
    assert capfdbinary.readouterr().out == b"a 1\n"


# Ends


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_subscription_quietly(bus: BrokerProcess, number: signal.Signals, code: int) -> None:
    with subscriber(bus, "quiet") as sub:
        sub.signal(number)
        assert sub.code() == code
        assert (sub.out.rest(), sub.err.rest()) == (b"", b"")


def test_ctrl_c_ends_a_subscription_whose_reader_does_not_read(bus: BrokerProcess) -> None:
    receive, send = os.pipe()
    sub = subprocess.Popen(
        command("sub", "flood", "--address", bus.unix), stdout=send, stderr=subprocess.PIPE, env=environment()
    )
    os.close(send)
    try:
        assert sub.stderr is not None
        assert sub.stderr.readline() == b"subscribed to flood\n"
        publish(bus, "flood", "-", stdin=b"x" * 1_000_000)
        os.read(receive, 1)  # it writes now, and the pipe is full
        sub.send_signal(signal.SIGINT)
        assert sub.wait(PATIENCE) == 130
        assert sub.stderr.read() == b""
    finally:
        os.close(receive)
        sub.kill()
        with sub:
            sub.wait()


def test_subscription_ends_quietly_when_its_reader_goes(bus: BrokerProcess) -> None:
    with subscriber(bus, "headed") as sub:
        publish(bus, "headed", "first")
        assert sub.out.next() == "headed first"
        assert sub.process.stdout is not None
        sub.process.stdout.close()
        assert sub.code() == 1
        assert sub.err.rest() == b""


def test_head_takes_its_line_and_the_pipeline_ends(bus: BrokerProcess) -> None:
    script = '"$@" | head -n 1'
    with Program(["sh", "-c", script, "sh", *command("sub", "piped", "--address", bus.unix)]) as pipeline:
        assert pipeline.err.next() == "subscribed to piped"
        publish(bus, "piped", "first")
        assert pipeline.out.rest() == b"piped first\n"
        assert pipeline.code() == 0
        assert pipeline.err.rest() == b""


def test_unread_output_keeps_no_deadline_waiting(bus: BrokerProcess) -> None:
    with subscriber(bus, "unread", "--timeout", "1") as sub:
        publish(bus, "unread", "-", stdin=b"x" * 1_000_000)
        assert sub.code() == 1
        assert sub.err.rest().startswith(b"sockbus: standard output did not take the last ")


def test_messages_that_never_stop_keep_no_deadline_waiting(bus: BrokerProcess) -> None:
    with connect(bus.unix) as flood, subscriber(bus, "endless", "--timeout", "0.5") as sub:
        reading = threading.Thread(target=sub.out.rest)
        reading.start()
        while sub.process.poll() is None:
            flood.publish("endless", "x")
        reading.join()
        assert sub.code() == 0


def test_bus_is_served_while_nobody_reads(bus: BrokerProcess) -> None:
    with subscriber(bus, "served") as sub, connect(bus.unix) as connection:
        for _ in range(30):
            connection.publish("served", b"x" * 100_000)
            connection.flush()

        def queued() -> int:
            peers = connection.request("$SYS.status").payload["peers"]
            return next(peer["queued_bytes"] for peer in peers if peer["name"] == "sockbus sub")

        eventually(lambda: queued() == 0)
        assert sub.process.poll() is None
        sub.signal(signal.SIGTERM)
        assert sub.code() == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_subscription_at_a_broker_that_is_stopped(
    broker: BrokerProcess, number: signal.Signals, code: int
) -> None:
    with subscriber(broker, "quiet") as sub:
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            sub.signal(number)
            assert sub.code() == code
            assert time.monotonic() - began < LEAVE_SECONDS / 2
            assert sub.err.rest() == b""
        finally:
            os.kill(broker.pid, signal.SIGCONT)


def test_what_came_before_the_broker_went_is_printed(broker: BrokerProcess) -> None:
    with subscriber(broker, "last") as sub:
        publish(broker, "last", "-", stdin=b"x" * 1_000_000)
        assert os.read(sub.process.stdout.fileno(), 1) == b"l"  # it writes now, and the pipe is full
        broker.kill()
        assert len(sub.out.next()) == 1_000_004
        assert "was lost" in sub.err.next()
