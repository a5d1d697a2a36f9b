"""Ctrl-C at every place of every call: nothing is lost, torn or left open, and the next call works."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from sockbus import Message, Reply
from sockbus.blocking import connect
from tests.blocking.interrupted import CALLS
from tests.brokers import Program


@pytest.fixture
def echo(address: str, topic: str) -> Iterator[None]:
    """A server that gives everything back."""

    def handler(request: Message) -> Reply:
        return Reply(request.payload, fds=request.fds)

    with connect(address) as bus:
        in_force = threading.Event()
        serving = threading.Thread(target=bus.serve, args=(topic, handler), kwargs={"task_status": in_force})
        serving.start()
        in_force.wait()
        yield
    serving.join()


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("call", CALLS)
def test_interrupt_at_any_place_tears_nothing_and_the_next_call_works(call: str, address: str, topic: str) -> None:
    with Program([sys.executable, "-m", "tests.blocking.interrupted", address, topic, call]) as program:
        assert program.code() == 0, program.err.rest().decode()
        assert int(program.out.next()) > 20
