"""What a program gets wrong is said to it at once, by an error of the right kind, and the bus goes on."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sockbus import (
    InvalidTopic,
    LimitExceeded,
    MessageTooLarge,
    NoResponders,
    PayloadError,
    PermissionDenied,
    TooManyFds,
)
from tests.contract.runtime import Runtime

Connect = Callable[..., Any]


@contextlib.asynccontextmanager
async def usable(connect: Connect, topic: str) -> AsyncIterator[Any]:
    """A bus that must be of use at the end of the block, and on which nothing of the block has left."""
    async with connect() as bus, bus.subscribe(f"{topic}.>") as messages:
        yield bus
        await bus.publish(f"{topic}.last", "goes on")
        assert (await messages.receive()).payload == "goes on"


def deep(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


TOPICS: list[Any] = [
    "", ".", "a..b", ".a", "a.", "a b", "a\tb", "a\x00", "*", "a.*", "a.>", "a*b", "x" * 256, "é" * 128,
    ".".join("x" * 33), "\ud800", None, 5, b"bytes",
]  # fmt: skip
PAYLOADS: list[Any] = [object(), {1, 2}, 2**64, -(2**63) - 1, {"k": object()}, [print], deep(2000), "\ud800"]
HEADERS: list[Any] = [
    {"k": None}, {"k": [1]}, {"k": {}}, {1: "v"}, {b"k": "v"}, {"k": 2**64}, {"\ud800": 1}, ["k"], "k",
]  # fmt: skip
LARGE_HEADERS = [{"k": "v" * 4096}, {str(number): number for number in range(33)}]


@pytest.mark.parametrize("wrong", TOPICS, ids=repr)
async def test_topic_that_is_none_is_refused(connect: Connect, topic: str, wrong: Any) -> None:
    async with usable(connect, topic) as bus:
        for options in ({}, {"receipt": True}, {"headers": {"k": 1}}):
            with pytest.raises(InvalidTopic):
                await bus.publish(wrong, **options)
        with pytest.raises(InvalidTopic):
            await bus.request(wrong)


async def test_topics_of_the_broker_are_not_for_others(connect: Connect, topic: str) -> None:
    async with usable(connect, topic) as bus:
        with pytest.raises(PermissionDenied, match=r"'\$SYS\.status' begins with \$"):
            await bus.publish("$SYS.status")
        with pytest.raises(PermissionDenied, match=r"'\$mine' begins with \$"):
            await bus.serve("$mine", print)
        with pytest.raises(NoResponders, match=r"\$SYS\.status"):
            await bus.request("$SYS.nothing")
        async with bus.subscribe("$SYS.>"):
            assert (await bus.request("$SYS.status")).sender.id == 0


@pytest.mark.parametrize("wrong", PAYLOADS, ids=lambda payload: type(payload).__name__)
async def test_payload_that_is_none_is_refused(connect: Connect, topic: str, wrong: Any) -> None:
    async with usable(connect, topic) as bus:
        for verb in (bus.publish, bus.request):
            with pytest.raises(PayloadError, match="cannot be encoded") as caught:
                await verb(f"{topic}.a", wrong)
            assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("wrong", HEADERS, ids=repr)
async def test_headers_that_are_none_are_refused(connect: Connect, topic: str, wrong: Any) -> None:
    async with usable(connect, topic) as bus:
        for verb in (bus.publish, bus.request):
            with pytest.raises(PayloadError, match="header"):
                await verb(f"{topic}.a", headers=wrong)


@pytest.mark.parametrize("wrong", LARGE_HEADERS, ids=["bytes", "keys"])
async def test_headers_that_are_too_large_are_refused(connect: Connect, topic: str, wrong: Any) -> None:
    async with usable(connect, topic) as bus:
        for verb in (bus.publish, bus.request):
            with pytest.raises(MessageTooLarge, match=r"header_(bytes = 4096|keys = 32)"):
                await verb(f"{topic}.a", headers=wrong)


@pytest.mark.parametrize("wrong", ["", "a..b", "a b", ">.a", "a.>.b", "a*", "a.b>", "x" * 256, None, 5], ids=repr)
async def test_pattern_that_is_none_is_refused(connect: Connect, topic: str, wrong: Any) -> None:
    async with usable(connect, topic) as bus:
        with pytest.raises(InvalidTopic):
            async with bus.subscribe(wrong):
                pass
        with pytest.raises(InvalidTopic):
            await bus.serve(wrong, print)


@pytest.mark.parametrize(
    "options",
    [
        {"group": ""}, {"group": "g" * 256}, {"group": "\ud800"}, {"group": 5}, {"group": b"g"},
        {"capacity": 0}, {"capacity": -1}, {"capacity": 1.5}, {"capacity": True}, {"capacity": 1 << 41},
        {"capacity_bytes": 0}, {"capacity_bytes": "1"}, {"fds": "keep"}, {"fds": None},
    ],
    ids=repr,
)  # fmt: skip
async def test_options_of_a_subscription_that_are_none_are_refused(
    connect: Connect, topic: str, options: dict[str, Any]
) -> None:
    async with usable(connect, topic) as bus:
        (name,) = options
        with pytest.raises(ValueError, match=name):
            async with bus.subscribe(topic, **options):
                pass


async def test_limits_of_a_connection_are_told_before_they_are_broken(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    async with usable(connect, topic) as bus, contextlib.AsyncExitStack() as stack:
        for number in range(511):
            await stack.enter_async_context(bus.subscribe(f"{topic}0.{number}"))
        with pytest.raises(LimitExceeded, match="subscriptions = 512"):
            await stack.enter_async_context(bus.subscribe(topic))
        for number in range(512):
            await stack.enter_async_context(runtime.serving(bus, f"{topic}0.{number}", print))
        with pytest.raises(LimitExceeded, match="servers = 512"):
            await bus.serve(topic, print)


@contextlib.contextmanager
def memfd() -> Iterator[int]:
    fd = os.memfd_create("passed")
    yield fd
    os.close(fd)


class Closed:
    def fileno(self) -> int:
        return -1


UNUSED = 1 << 20
FDS: list[tuple[Callable[[int], Any], type[Exception], str]] = [
    (lambda good: [good] * 17, TooManyFds, "17 file descriptors exceed message_fds = 16"),
    (lambda good: [good] * 300, TooManyFds, "300 file descriptors"),
    (lambda _: Closed(), PayloadError, "put it into one"),
    (lambda good: good, PayloadError, "put it into one"),
    (lambda good: [good, UNUSED], PayloadError, "Bad file descriptor"),
    (lambda _: [-1], PayloadError, "-1 cannot be sent"),
    (lambda _: [Closed()], PayloadError, "is closed"),
    (lambda _: ["name"], PayloadError, "'name' cannot be sent"),
    (lambda _: [None], PayloadError, "None cannot be sent"),
    (lambda _: [True], PayloadError, "True cannot be sent"),
    (lambda _: [1 << 40], PayloadError, "cannot be sent"),
]


@pytest.mark.parametrize("transport", ["seqpacket", "stream"], indirect=True)
@pytest.mark.parametrize(("fds", "error", "text"), FDS)
async def test_fds_that_are_none_are_refused(
    connect: Connect, topic: str, fds: Callable[[int], Any], error: type[Exception], text: str
) -> None:
    with memfd() as good:
        async with usable(connect, topic) as bus:
            for verb in (bus.publish, bus.request):
                with pytest.raises(error, match=text):
                    await verb(f"{topic}.a", fds=fds(good))


def leads_to(fd: int, path: str) -> bool:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        return bool(sock.getpeername() == path)
    except OSError:
        return False
    finally:
        sock.detach()


@pytest.mark.parametrize("transport", ["seqpacket", "stream"], indirect=True)
async def test_bus_does_not_send_its_own_socket(connect: Connect, topic: str) -> None:
    async with usable(connect, topic) as bus:
        path = bus.address.partition(":")[2]
        (own,) = [fd for fd in map(int, os.listdir("/proc/self/fd")) if leads_to(fd, path)]
        copy = os.dup(own)
        for fd in (own, copy):
            with pytest.raises(PermissionDenied, match="own socket"):
                await bus.publish(f"{topic}.a", fds=[fd])
        os.close(copy)
