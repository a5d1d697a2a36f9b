"""File descriptors as values: each receiver gets its own, all are closed exactly once, none goes astray."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sockbus import Fd, Message, Receipt, Reply
from tests.brokers import BrokerProcess
from tests.contract.peers import peer
from tests.contract.runtime import Runtime
from tests.contract.status import fds_of, page, until

Connect = Callable[..., Any]

MESSAGE_FDS = 16


@pytest.fixture(params=["seqpacket", "stream"])
def transport(request: pytest.FixtureRequest) -> str:
    """Those that carry fds."""
    return str(request.param)


@contextlib.contextmanager
def files(*contents: bytes) -> Iterator[list[int]]:
    """Open files with these contents, closed at the end."""
    made = [os.memfd_create("passed") for _ in contents]
    try:
        for fd, content in zip(made, contents, strict=True):
            os.write(fd, content)
        yield made
    finally:
        for fd in made:
            os.close(fd)


def read(fds: tuple[Fd, ...]) -> list[bytes]:
    """The contents, without touching the offset, which all holders share."""
    return [os.pread(fd.fileno(), 64, 0) for fd in fds]


@pytest.mark.parametrize("count", [1, 2, MESSAGE_FDS])
async def test_fds_arrive_in_their_order(connect: Connect, topic: str, count: int) -> None:
    contents = [b"file %d" % number for number in range(count)]
    async with connect() as bus, connect() as taker, taker.subscribe(topic) as messages:
        with files(*contents) as fds:
            receipt = await bus.publish(topic, "body", fds=fds, headers={"h": 1}, receipt=True)
            assert receipt == Receipt(1, 1, 0, 0)
            message = await messages.receive()
            assert not {fd.fileno() for fd in message.fds} & set(fds)
        with message:
            assert (message.payload, message.headers, message.fds_missing) == ("body", {"h": 1}, 0)
            assert read(message.fds) == contents
            assert not any(os.get_inheritable(fd.fileno()) for fd in message.fds)
        assert all(fd.closed for fd in message.fds)


async def test_fds_may_be_anything_that_has_a_number_and_may_repeat(connect: Connect, topic: str) -> None:
    with files(b"memfd") as (number,), open("/etc/passwd", "rb") as file, Fd(os.dup(number)) as owned:
        async with connect() as bus, bus.subscribe(topic) as messages:
            await bus.publish(topic, fds=[number, file, owned, number])
            with await messages.receive() as message:
                assert len({fd.fileno() for fd in message.fds}) == 4
                same = [os.path.sameopenfile(fd.fileno(), number) for fd in message.fds]
                assert same == [True, False, True, True]
                assert os.path.sameopenfile(message.fds[1].fileno(), file.fileno())


async def test_fds_may_be_closed_as_soon_as_publish_returns(connect: Connect, runtime: Runtime, topic: str) -> None:
    count = 500

    async def publish() -> None:
        for number in range(count):
            with files(b"%d" % number, b"other") as fds:
                await bus.publish(topic, number, fds=fds)
            # What takes the numbers next must not be what arrives.
            with files(b"wrong", b"wrong"):
                pass

    async with connect() as bus, connect() as taker, taker.subscribe(topic) as messages, runtime.during(publish):
        for number in range(count):
            with await messages.receive() as message:
                assert (message.payload, read(message.fds)) == (number, [b"%d" % number, b"other"])


async def test_each_subscriber_gets_fds_of_its_own(connect: Connect, topic: str) -> None:
    async with (
        connect() as bus,
        connect() as one,
        connect() as two,
        one.subscribe(topic) as first,
        one.subscribe(f"{topic}") as second,
        two.subscribe(topic) as third,
    ):
        with files(b"shared") as fds:
            assert await bus.publish(topic, fds=fds, receipt=True) == Receipt(3, 3, 0, 0)
        came = [await messages.receive() for messages in (first, second, third)]
        for message in came:
            assert read(message.fds) == [b"shared"]
            message.close()
        assert len({message.fds[0] for message in came}) == 3


async def test_plain_large_and_fd_messages_keep_their_order_and_their_fds(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    count = 200

    async def publish() -> None:
        for number in range(count):
            body = [number, b"x" * (100_000 if number % 10 == 5 else 100)]
            with files(*[b"%d" % number] * (number % 4)) as fds:
                await bus.publish(topic, body, fds=fds)

    async with connect() as bus, connect() as taker, taker.subscribe(topic) as messages, runtime.during(publish):
        for number in range(count):
            with await messages.receive() as message:
                assert message.payload[0] == number
                assert read(message.fds) == [b"%d" % number] * (number % 4)


async def test_fds_from_a_process_that_has_left_arrive(
    connect: Connect, runtime: Runtime, topic: str, address: str
) -> None:
    async with connect() as bus, bus.subscribe(topic) as messages:
        with peer("publish", address, topic, "100") as publisher:
            for number in range(100):
                with await messages.receive() as message:
                    assert (message.payload, read(message.fds)) == (number, [b"%d" % number])
            assert await runtime.in_thread(publisher.out.next) == "left"
            assert await runtime.in_thread(publisher.code) == 0


async def test_subscriber_in_another_process_reads_through_the_fds(
    connect: Connect, runtime: Runtime, topic: str, address: str
) -> None:
    async with connect() as bus:
        with peer("take", address, topic) as taker, files(b"one", b"two") as fds:
            await bus.publish(topic, 1, fds=fds)
            assert await runtime.in_thread(taker.out.next) == "[1, [b'one', b'two']]"


async def test_loop_that_ignores_fds_leaks_none(
    connect: Connect, runtime: Runtime, topic: str, common_broker: BrokerProcess
) -> None:
    async def publish() -> None:
        with files(b"ignored") as fds:
            for number in range(1000):
                await bus.publish(topic, number, fds=fds * 2)

    async with connect() as bus, connect() as taker, taker.subscribe(topic) as messages, runtime.during(publish):
        before = fds_of(os.getpid())
        most = 0
        for number in range(1000):
            assert (await messages.receive()).payload == number
            most = max(most, fds_of(os.getpid()) - before)
        # Credit for 64 waits here at most, and what is on its way out; the rest was closed as it was passed over.
        assert most < 64 + MESSAGE_FDS + 2 * 64
        found = await until(bus, lambda found: found["fds"]["held"] == 0)
        assert found["limits"]["link_fds"] == 64
    assert fds_of(common_broker.pid) > 0


async def test_fds_that_nobody_took_are_closed_when_the_subscription_is_left(connect: Connect, topic: str) -> None:
    async with connect() as bus, connect() as taker:
        before = fds_of(os.getpid())
        async with taker.subscribe(topic) as messages:
            with files(b"not taken") as fds:
                for _ in range(100):
                    await bus.publish(topic, fds=fds)
                    if _ == 0:
                        (await messages.receive()).close()
                await until(bus, lambda found: any(row["waiting"] for row in found["subscriptions"]))
        await until(bus, lambda found: found["fds"]["held"] == 0)
        await taker.flush()
        while fds_of(os.getpid()) != before:
            await taker.flush()


async def test_stopped_reader_of_fds_holds_up_only_its_publisher(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async def flood() -> None:
        with files(b"flood") as fds:
            while True:
                await one.publish(f"{topic}.stopped", fds=fds)
                published.append(None)

    published: list[None] = []
    async with (
        connect() as one,
        connect() as two,
        connect() as taker,
        taker.subscribe(f"{topic}.stopped"),
        two.subscribe(f"{topic}.read") as messages,
        runtime.during(flood),
    ):
        # 64 by the subscription's credit, and as many again by the publisher's window.
        await until(two, lambda found: found["fds"]["held"] >= 64)
        with files(b"goes on") as fds:
            for _ in range(300):
                await two.publish(f"{topic}.read", fds=fds)
                with await messages.receive() as message:
                    assert read(message.fds) == [b"goes on"]
        assert len(published) == 128
        assert (await page(two))["fds"]["held"] == 64


async def test_received_fd_becomes_a_file_a_socket_or_a_number(connect: Connect, topic: str) -> None:
    near, far = socket.socketpair()
    with near, far, files(b"text to read") as (file,):
        async with connect() as bus, bus.subscribe(topic) as messages:
            await bus.publish(topic, fds=[file, far, file])
            message: Message = await messages.receive()
        as_file, as_socket, as_number = message.fds
        os.lseek(file, 0, os.SEEK_SET)
        with as_file.open("r", encoding="utf-8") as opened:
            assert opened.read() == "text to read"
        with as_socket.socket() as made:
            near.sendall(b"through the bus")
            assert made.recv(64) == b"through the bus"
        number = as_number.detach()
        message.close()
        assert os.pread(number, 4, 0) == b"text"
        os.close(number)
        for fd in message.fds:
            assert fd.closed
            with pytest.raises(ValueError, match="closed, or its descriptor was handed on"):
                fd.fileno()


async def test_fds_go_with_requests_and_replies(connect: Connect, runtime: Runtime, topic: str) -> None:
    kept: list[tuple[Fd, ...]] = []

    def swap(request: Message) -> Reply:
        kept.append(request.fds)
        with files(b"".join(read(request.fds)).upper()) as (made,):
            # Nobody but the reply holds this one: it must live until the reply has left.
            return Reply("swapped", fds=[Fd(os.dup(made)), *request.fds])

    async with connect() as bus, connect() as server, runtime.serving(server, topic, swap):
        with files(b"a", b"b") as fds:
            asked = functools.partial(bus.request, topic, fds=fds)
            replies = await runtime.gather(*[asked] * 50)
        for reply in replies:
            with reply:
                assert (reply.payload, read(reply.fds)) == ("swapped", [b"AB", b"a", b"b"])
    assert len(kept) == 50
    assert all(fd.closed for fds in kept for fd in fds)
