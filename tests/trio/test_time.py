"""What takes too long, on a clock that jumps: no broker is behind these sockets, so nothing else can happen."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from sockbus import ConnectError
from sockbus.trio import connect
from tests.contract.short import short_directory
from tests.contract.status import fds_of, settled

KINDS = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}


@contextlib.contextmanager
def silent(transport: str) -> Iterator[tuple[str, socket.socket]]:
    """The address of a listener that never accepts, and the listener."""
    if transport == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield f"tcp:127.0.0.1:{listener.getsockname()[1]}", listener
        return
    with short_directory() as directory, socket.socket(socket.AF_UNIX, KINDS[transport]) as listener:
        listener.bind(f"{directory}/socket")
        listener.listen(1)
        yield f"{transport}:{directory}/socket", listener


async def test_broker_that_does_not_answer_is_given_up_after_ten_seconds(
    transport: str, autojump_clock: MockClock
) -> None:
    with silent(transport) as (address, _):
        before, start = fds_of(os.getpid()), trio.current_time()
        with pytest.raises(ConnectError, match=rf"{address} did not answer within 10 s; is it stopped\?"):
            async with connect(address):
                pass
        assert trio.current_time() - start == pytest.approx(10)
        assert settled(lambda: fds_of(os.getpid()), before) == before


@pytest.mark.parametrize("transport", ["seqpacket", "stream"], indirect=True)
async def test_backlog_that_stays_full_is_given_up_after_ten_seconds(transport: str, autojump_clock: MockClock) -> None:
    with silent(transport) as (address, _), contextlib.ExitStack() as waiting:
        path = address.partition(":")[2]
        while True:
            sock = waiting.enter_context(socket.socket(socket.AF_UNIX, KINDS[transport]))
            sock.setblocking(False)
            if sock.connect_ex(path):
                break
        before, start = fds_of(os.getpid()), trio.current_time()
        with pytest.raises(ConnectError, match=f"{address} did not answer within 10 s"):
            async with connect(address):
                pass
        assert trio.current_time() - start == pytest.approx(10)
        assert settled(lambda: fds_of(os.getpid()), before) == before


async def test_program_may_have_less_patience(transport: str, autojump_clock: MockClock) -> None:
    with silent(transport) as (address, _):
        start = trio.current_time()
        with pytest.raises(trio.TooSlowError), trio.fail_after(2):
            async with connect(address):
                pass
        assert trio.current_time() - start == pytest.approx(2)


async def test_broker_that_goes_before_it_answers_is_a_connect_error(transport: str) -> None:
    with silent(transport) as (address, listener):

        async def hang_up() -> None:
            await trio.lowlevel.wait_readable(listener)
            listener.accept()[0].close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up)
            with pytest.raises(ConnectError, match=f"{address} refused the connection: "):
                async with connect(address):
                    pass
