"""Requests: one server answers, and however a request ends, its requester learns of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from sockbus import Message, NoResponders, RemoteError, Reply, RequestTimeout, ResponderLost
from tests.contract.peers import peer
from tests.contract.runtime import Runtime
from tests.contract.status import first, page, total, until

Connect = Callable[..., Any]


def upper(request: Message) -> str:
    return str(request.payload).upper()


async def upper_later(request: Message) -> str:
    return str(request.payload).upper()


def upper_reply(request: Message) -> Reply:
    return Reply(str(request.payload).upper(), headers={"seen": request.headers.get("give", "")})


@pytest.mark.parametrize("handler", [upper, upper_later, upper_reply, functools.partial(upper)])
async def test_handler_of_every_kind_answers(
    connect: Connect, runtime: Runtime, topic: str, handler: Callable[[Message], Any]
) -> None:
    async with connect() as bus, connect(name="server") as server, runtime.serving(server, f"{topic}.*", handler):
        reply = await bus.request(f"{topic}.a", "hello", headers={"give": "back"})
        assert (reply.payload, reply.topic, reply.sender) == ("HELLO", f"{topic}.a", server.peer)
        assert reply.headers == ({"seen": "back"} if handler is upper_reply else {})
        assert (reply.fds, reply.fds_missing, reply.lost) == ((), 0, 0)


async def test_handler_sees_who_asks_for_what(connect: Connect, runtime: Runtime, topic: str) -> None:
    requests: list[Message] = []
    async with connect(name="asker") as bus, connect() as server:
        async with runtime.serving(server, f"{topic}.>", requests.append):
            reply = await bus.request(f"{topic}.a.b", {"k": [1]}, headers={"h": True})
        assert reply.payload is None
        (request,) = requests
        assert (request.topic, request.payload, request.headers) == (f"{topic}.a.b", {"k": [1]}, {"h": True})
        assert request.sender == bus.peer


async def test_bus_can_ask_itself(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as bus, runtime.serving(bus, topic, upper):
        assert (await bus.request(topic, "me")).payload == "ME"


async def test_handler_can_ask_others(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as bus:

        async def delegate(request: Message) -> Any:
            return (await bus.request(f"{topic}.upper", request.payload)).payload + "!"

        async with runtime.serving(bus, f"{topic}.upper", upper), runtime.serving(bus, f"{topic}.loud", delegate):
            assert (await bus.request(f"{topic}.loud", "hey")).payload == "HEY!"


async def test_requests_never_reach_subscriptions_nor_publishes_servers(
    connect: Connect, runtime: Runtime, topic: str
) -> None:
    served: list[Any] = []
    async with connect() as bus, bus.subscribe(topic) as messages:
        async with runtime.serving(bus, topic, lambda request: served.append(request.payload)):
            await bus.request(topic, "request")
            await bus.publish(topic, "publish")
            assert (await messages.receive()).payload == "publish"
        assert served == ["request"]


class Odd(ValueError):
    """An exception of a handler's."""


def fail_with(error: Exception) -> Callable[[Message], Any]:
    def handler(_: Message) -> Any:
        raise error

    return handler


async def fail_later(_: Message) -> Any:
    raise Odd("later")


def reply_with_rubbish(_: Message) -> Any:
    return object()


@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        (fail_with(Odd("what was odd: ü")), "Odd", "what was odd: ü"),
        (fail_with(KeyError("k")), "KeyError", "'k'"),
        (fail_with(RuntimeError()), "RuntimeError", ""),
        (fail_with(RuntimeError("x" * 100_000)), "RuntimeError", "x" * 4096),
        (fail_with(RuntimeError("half \ud800 text")), "RuntimeError", "half ? text"),
        (fail_later, "Odd", "later"),
        (reply_with_rubbish, "PayloadError", "cannot be encoded"),
        (lambda _: Reply("x", headers={"k": [1]}), "PayloadError", "header 'k' is a list"),
    ],
)
async def test_exception_of_a_handler_becomes_the_requesters_and_serving_goes_on(
    connect: Connect, runtime: Runtime, topic: str, handler: Callable[[Message], Any], kind: str, text: str
) -> None:
    async with connect() as bus, connect() as server, runtime.serving(server, topic, handler):
        for _ in range(2):
            with pytest.raises(RemoteError) as caught:
                await bus.request(topic)
            assert caught.value.type == kind
            assert text in caught.value.text
            assert str(caught.value) == (f"{kind}: {caught.value.text}" if caught.value.text else kind)


async def test_request_that_nobody_serves_fails_at_once(connect: Connect, runtime: Runtime, topic: str) -> None:
    async with connect() as bus, bus.subscribe(topic):
        with pytest.raises(NoResponders, match=f"nobody serves '{topic}'"):
            await bus.request(topic, timeout=None)
        async with runtime.serving(bus, topic, upper):
            assert (await bus.request(topic, "now")).payload == "NOW"
        with pytest.raises(NoResponders):
            await bus.request(topic, timeout=None)


async def test_request_fails_when_its_server_is_killed(
    connect: Connect, runtime: Runtime, topic: str, address: str
) -> None:
    async with connect() as bus:
        with peer("hold", address, topic) as server:

            async def ask() -> None:
                with pytest.raises(ResponderLost, match=topic):
                    await bus.request(topic, timeout=None)

            async def kill() -> None:
                for _ in range(3):
                    assert await runtime.in_thread(server.out.next) == "called"
                server.process.kill()

            await runtime.gather(ask, ask, ask, kill)
        with pytest.raises(NoResponders):
            await bus.request(topic)


async def test_request_fails_when_its_server_stops_serving(connect: Connect, runtime: Runtime, topic: str) -> None:
    called, stop = runtime.event(), runtime.event()

    async def never(_: Message) -> None:
        called.set()
        await runtime.event().wait()

    async def serve() -> None:
        async with runtime.serving(server, topic, never, concurrency=1):
            in_force.set()
            await stop.wait()

    async def ask() -> None:
        await in_force.wait()
        with pytest.raises(ResponderLost):
            await bus.request(topic, timeout=None)

    async def end() -> None:
        await called.wait()
        # The other one waits at the broker, where the server has no room for it.
        await until(bus, lambda found: first(found, "servers", topic)["outstanding"] == 1)
        stop.set()

    in_force = runtime.event()
    async with connect() as bus, connect() as server:
        await runtime.gather(serve, ask, ask, end)
        assert first(await page(bus), "servers", topic) == {}


async def test_timeout_names_topic_and_time(connect: Connect, runtime: Runtime, topic: str) -> None:
    async def never(_: Message) -> None:
        await runtime.event().wait()

    async with connect() as bus, runtime.serving(bus, topic, never):
        for timeout in (0.02, 0):
            with pytest.raises(RequestTimeout, match=rf"'{topic}' within {timeout:g} s") as caught:
                await bus.request(topic, timeout=timeout)
            assert isinstance(caught.value, TimeoutError)
            assert (caught.value.topic, caught.value.timeout) == (topic, timeout)


async def test_reply_that_comes_too_late_is_dropped(connect: Connect, runtime: Runtime, topic: str) -> None:
    release = runtime.event()

    async def late(_: Message) -> bytes:
        await release.wait()
        return b"late" * 100_000

    async with connect() as bus, connect() as server, runtime.serving(server, topic, late):
        before = total(await page(bus), "late_replies")
        with pytest.raises(RequestTimeout):
            await bus.request(topic, timeout=0.02)
        release.set()
        await until(bus, lambda found: total(found, "late_replies") == before + 1)
        assert len((await bus.request(topic)).payload) == 400_000
