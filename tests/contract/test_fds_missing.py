"""Where a link carries no fds: what ``fds="reject"`` and ``"strip"`` do, and who learns of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sockbus import Message, NoResponders, Receipt, RemoteError, Reply, TooManyFds
from tests.brokers import BrokerProcess
from tests.contract.runtime import Runtime

Connect = Callable[..., Any]
NONE_HERE = r"this link carries no file descriptors \(given: 1\); pass them over a UNIX socket"


@pytest.fixture(params=["seqpacket", "stream"])
def transport(request: pytest.FixtureRequest) -> str:
    """The side that carries fds."""
    return str(request.param)


@pytest.fixture
def far(runtime: Runtime, common_broker: BrokerProcess) -> Any:
    """``connect`` over TCP."""
    return lambda **options: runtime.connect(common_broker.tcp, **options)


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("passed")
    yield fd
    os.close(fd)


async def test_rejected_message_is_lost_to_the_subscriber_and_said_in_the_receipt(
    connect: Connect, far: Connect, topic: str, file: int
) -> None:
    async with connect() as bus, far() as taker, taker.subscribe(topic) as messages:
        assert await bus.publish(topic, 0, receipt=True) == Receipt(1, 1, 0, 0)
        assert await bus.publish(topic, 1, fds=[file], receipt=True) == Receipt(1, 0, 0, 1)
        assert await bus.publish(topic, 2, fds=[file] * 3, receipt=True) == Receipt(1, 0, 0, 1)
        assert await bus.publish(topic, 3, receipt=True) == Receipt(1, 1, 0, 0)
        assert await bus.publish(topic, 4, fds=[file], receipt=True) == Receipt(1, 0, 0, 1)
        assert await bus.publish(topic, 5, headers={"h": 1}, receipt=True) == Receipt(1, 1, 0, 0)
        came = [await messages.receive() for _ in range(3)]
    assert [(message.payload, message.lost, message.fds_missing) for message in came] == [
        (0, 0, 0),
        (3, 2, 0),
        (5, 1, 0),
    ]
    assert messages.lost == 3


async def test_loss_shows_without_a_further_message(connect: Connect, far: Connect, topic: str, file: int) -> None:
    async with connect() as bus, far() as taker, taker.subscribe(topic) as messages:
        for _ in range(5):
            await bus.publish(topic, fds=[file], receipt=True)
        await taker.flush()
        while messages.lost < 5:
            await taker.flush()
    assert messages.lost == 5


async def test_stripped_message_says_how_many_fds_are_missing(
    connect: Connect, far: Connect, topic: str, file: int
) -> None:
    async with connect() as bus, far() as taker, taker.subscribe(topic, fds="strip") as messages:
        for count in (1, 0, 16):
            receipt = await bus.publish(topic, count, fds=[file] * count, headers={"h": count}, receipt=True)
            assert receipt == Receipt(1, 1, 0, 0)
        await bus.publish(topic, b"x" * 200_000, fds=[file] * 2)
        came = [await messages.receive() for _ in range(4)]
    assert [(message.fds, message.fds_missing, message.lost) for message in came] == [
        ((), count, 0) for count in (1, 0, 16, 2)
    ]
    assert [message.headers for message in came[:3]] == [{"h": 1}, {"h": 0}, {"h": 16}]
    assert len(came[3].payload) == 200_000


@pytest.mark.parametrize("policy", ["reject", "strip"])
async def test_policy_has_no_effect_on_a_link_that_carries_fds(
    connect: Connect, topic: str, file: int, policy: str
) -> None:
    async with connect() as bus, bus.subscribe(topic, fds=policy) as messages:
        assert await bus.publish(topic, fds=[file], receipt=True) == Receipt(1, 1, 0, 0)
        with await messages.receive() as message:
            assert (len(message.fds), message.fds_missing, messages.lost) == (1, 0, 0)


async def test_receipt_adds_up_over_links_of_every_kind(connect: Connect, far: Connect, topic: str, file: int) -> None:
    async with (
        connect() as bus,
        far() as taker,
        bus.subscribe(topic) as here,
        taker.subscribe(topic) as rejecting,
        taker.subscribe(topic, fds="strip") as stripping,
    ):
        assert await bus.publish(topic, fds=[file] * 2, receipt=True) == Receipt(3, 2, 0, 1)
        with await here.receive() as message:
            assert (len(message.fds), message.fds_missing) == (2, 0)
        assert (await stripping.receive()).fds_missing == 2
        await bus.publish(topic, "after")
        assert (await rejecting.receive()).lost == 1


async def test_group_prefers_members_whose_links_carry_fds(
    connect: Connect, far: Connect, topic: str, file: int
) -> None:
    async with connect() as bus, far() as taker, taker.subscribe(topic, group="g") as without:
        assert await bus.publish(topic, fds=[file], receipt=True) == Receipt(1, 0, 0, 1)
        async with bus.subscribe(topic, group="g") as carries:
            for _ in range(10):
                assert await bus.publish(topic, fds=[file], receipt=True) == Receipt(1, 1, 0, 0)
                with await carries.receive() as message:
                    assert len(message.fds) == 1
        assert without.lost == 1


async def test_publishing_fds_over_a_link_without_them_is_refused_at_once(far: Connect, topic: str, file: int) -> None:
    async with far() as bus, bus.subscribe(topic) as messages:
        for verb in (bus.publish, bus.request):
            with pytest.raises(TooManyFds, match=NONE_HERE):
                await verb(topic, fds=[file])
        await bus.publish(topic, "goes on")
        assert (await messages.receive()).payload == "goes on"


async def test_request_with_fds_goes_to_servers_that_can_have_them(
    connect: Connect, far: Connect, runtime: Runtime, topic: str, file: int
) -> None:
    def count(request: Message) -> int:
        return len(request.fds)

    async with connect() as bus, far() as distant, runtime.serving(distant, topic, count):
        with pytest.raises(NoResponders, match="file descriptors"):
            await bus.request(topic, fds=[file])
        assert (await bus.request(topic)).payload == 0
        async with runtime.serving(bus, topic, count):
            for _ in range(10):
                assert (await bus.request(topic, fds=[file] * 2)).payload == 2


async def test_reply_with_fds_reaches_a_link_without_them_bare(
    connect: Connect, far: Connect, runtime: Runtime, topic: str, file: int
) -> None:
    reply = Reply("body", fds=[file] * 3, headers={"h": 1})
    async with connect() as server, far() as bus, runtime.serving(server, topic, lambda _: reply):
        for _ in range(50):
            came = await bus.request(topic)
            assert (came.payload, came.headers, came.fds, came.fds_missing) == ("body", {"h": 1}, (), 3)


async def test_reply_with_fds_over_a_link_without_them_is_the_handlers_error(
    connect: Connect, far: Connect, runtime: Runtime, topic: str, file: int
) -> None:
    async with connect() as bus, far() as server, runtime.serving(server, topic, lambda _: Reply(fds=[file])):
        with pytest.raises(RemoteError) as caught:
            await bus.request(topic)
    assert caught.value.type == "TooManyFds"
