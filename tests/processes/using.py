"""Scenarios of a child that uses the bus of its parent."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from sockbus.fd import closing_settled
from tests.processes.child import Child, complaint, in_child
from tests.processes.runtimes import plain
from tests.processes.scenario import Place, goes_on, queued, scenario


def is_clear(sentence: str, parent: int) -> bool:
    """Whether an error's text names the fork, the parent and the remedy."""
    return bool(re.search(rf"\bby fork from process {parent}\b.*; connect again in this process", sentence))


def all_clear(complaints: dict[str, str], parent: int = 0) -> None:
    unclear = {verb: text for verb, text in complaints.items() if not is_clear(text, parent or os.getpid())}
    assert not unclear, unclear


async def verbs(bus: Any, messages: Any, topic: str) -> dict[str, str]:
    """What each call says."""

    async def enter() -> None:
        async with bus.subscribe(topic):
            pass

    async def step(iterator: Any) -> None:
        await iterator.__anext__()

    async def batch() -> None:
        with plain(bus).batch():
            await bus.publish(topic)

    async def background() -> None:
        with plain(bus).background():
            pass

    with open(os.devnull) as nothing:
        found = {
            "publish": await complaint(bus.publish, topic, "from the child"),
            "publish large": await complaint(bus.publish, topic, b"x" * (1 << 20)),
            "publish fds": await complaint(bus.publish, topic, fds=[nothing]),
            "publish headers": await complaint(bus.publish, topic, headers={"from": "child"}),
            "receipt": await complaint(bus.publish, topic, receipt=True),
            "request": await complaint(bus.request, "$SYS.status"),
            "serve": await complaint(bus.serve, topic, print),
            "enter": await complaint(enter),
            "receive": await complaint(messages.receive),
            "iterate": await complaint(step, aiter(messages)),
            "batches": await complaint(step, messages.batches()),
            "flush": await complaint(bus.flush),
        }
    if hasattr(plain(bus), "batch"):
        found["batch"] = await complaint(batch)
        found["background"] = await complaint(background)
    return found


@scenario()
async def every_verb(place: Place) -> None:
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        for number in range(3):
            await bus.publish(place.topic, f"before {number}")
        await queued(bus, messages, 3)
        child = await in_child(lambda: verbs(bus, messages, place.topic))
        all_clear(child.end())
        await goes_on(bus, messages, place.topic, first=tuple(f"before {number}" for number in range(3)))


@scenario()
async def every_verb_while_messages_come(place: Place) -> None:
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        for _ in range(5):
            await bus.publish(place.topic, "unread")
            child = await in_child(lambda: verbs(bus, messages, place.topic))
            all_clear(child.end())
        await goes_on(bus, messages, place.topic, first=("unread",) * 5)


@scenario()
async def child_of_a_child(place: Place) -> None:
    async def again() -> dict[str, str]:
        grandchild = await in_child(lambda: verbs(bus, messages, place.topic))
        found: dict[str, str] = grandchild.end()
        return found

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        child = await in_child(again)
        all_clear(child.end())
        await goes_on(bus, messages, place.topic)


@scenario()
async def two_buses(place: Place) -> None:
    async def both() -> dict[str, str]:
        return {"one": await complaint(one.publish, place.topic), "two": await complaint(two.publish, place.topic)}

    async with place.connect() as one, place.connect() as two, two.subscribe(place.topic) as messages:
        child = await in_child(both)
        all_clear(child.end())
        await goes_on(two, messages, place.topic)
        await one.flush()


@scenario()
async def leaving_with_what_was_published(place: Place) -> None:
    """A child cannot say whether what its parent had published is taken over, and so it does not leave quietly."""
    await leaves(place, flushed=False)


@scenario()
async def leaving_with_nothing_open(place: Place) -> None:
    """When all was taken over before the fork, a child leaves its parent's bus quietly, as any bus that has ended."""
    await leaves(place, flushed=True)


async def leaves(place: Place, *, flushed: bool) -> None:
    child: Any = None

    async def blocks() -> None:
        nonlocal child
        async with place.connect() as bus, bus.subscribe(place.topic) as messages:
            await bus.publish(place.topic, "before")
            if flushed:
                await bus.flush()
            child = Child()
            if child.pid:
                report = child.end()
                assert report == "it raised nothing" if flushed else is_clear(report, os.getpid()), report
                await goes_on(bus, messages, place.topic, first=("before",))

    said = await complaint(blocks)
    if not child.pid:
        child.say(said)
        os._exit(0)
    assert said == "it raised nothing"


@scenario()
async def descriptors(place: Place) -> None:
    """The child has no socket of the bus and no descriptor that came with a message; the parent has all of them."""

    async def held() -> list[str]:
        assert closing_settled(5.0)
        return open_files()

    async with place.connect() as bus, bus.subscribe(place.topic, fds="strip") as messages:
        before = collections.Counter(open_files())
        for number in range(3):
            file = os.memfd_create(f"file {number}")
            os.write(file, b"%d" % number)
            # Closing a socket is left to a thread, here and in the child.
            one, other = socket.socketpair()
            with open(file), one, other:
                await bus.publish(place.topic, number, fds=[file, one] if place.carries_fds else ())
        await queued(bus, messages, 3)
        assert closing_settled(5.0)
        assert (collections.Counter(open_files()) - before).total() == 6 * place.carries_fds
        child = await in_child(held)
        inherited = collections.Counter(child.end())
        # What is new is by what it reports.
        assert [target.partition(":")[0] for target in inherited - before] == ["pipe"]
        own = os.readlink(f"/proc/self/fd/{plain(bus)._waits.channel.sock.fileno()}")
        assert before - inherited == collections.Counter([own, *["anon_inode:[eventfd]"] * hasattr(bus, "batch")])
        for number in range(3):
            message = await messages.receive()
            assert message.payload == number
            assert [os.pread(fd.fileno(), 9, 0) for fd in message.fds[:1]] == [b"%d" % number] * place.carries_fds
            message.close()
        await goes_on(bus, messages, place.topic)


def open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


def sockets() -> list[str]:
    return [target for target in open_files() if target.startswith("socket")]


async def inherited_sockets() -> list[str]:
    return sockets()


@contextlib.contextmanager
def nobody_answers() -> Iterator[str]:
    """An address where connecting takes for ever: who listens has no room."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"tcp:127.0.0.1:{listener.getsockname()[1]}"


@scenario()
async def half_written(place: Place) -> None:
    """A large message is half in the socket; the parent sends the rest of it, and the child none."""
    async with (
        place.connect() as bus,
        place.connect() as other,
        other.subscribe(place.topic, capacity_bytes=1 << 30) as messages,
    ):
        payloads = await begin(bus, place.topic)
        child = await in_child(lambda: verbs(bus, messages, place.topic))
        await bus.publish(place.topic, "behind")
        all_clear(child.end())
        await bus.flush()
        await goes_on(other, messages, place.topic, first=(*payloads, "behind"))


async def begin(bus: Any, topic: str) -> list[bytes]:
    """Publish large messages until the last one is half in the socket, and half not: what they were."""
    payloads = []
    options = {"timeout": 0.0} if hasattr(plain(bus), "batch") else {}
    while not plain(bus)._client.session.outbox.queued_bytes:
        await bus.flush()
        payloads.append(os.urandom(1 << 16) * 256)
        await bus.publish(topic, payloads[-1], **options)
    return payloads


@scenario(transports=("seqpacket", "stream"))
async def in_the_middle_of_a_publish(place: Place) -> None:
    """Where the bus calls what the program gave it."""
    children: list[Child] = []

    class Forking:
        def fileno(self) -> int:
            children.append(Child())
            return 0

    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        said = await complaint(bus.publish, place.topic, "with a file", fds=[Forking()])
        if not children[0].pid:
            children[0].say({"publish": said, **await verbs(bus, messages, place.topic)})
            os._exit(0)
        assert said == "it raised nothing"
        all_clear(children[0].end())
        await goes_on(bus, messages, place.topic, first=("with a file",))


@scenario()
async def programs_inherit_no_socket(place: Place) -> None:
    """What is executed, even with close_fds=False, has no descriptor of a bus."""
    list_files = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]])"
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        done = subprocess.run(
            [sys.executable, "-c", list_files], close_fds=False, stdout=subprocess.PIPE, check=True, timeout=10
        )
        assert b"socket" not in done.stdout, done.stdout
        assert b"anon_inode" not in done.stdout, done.stdout
        await goes_on(bus, messages, place.topic)
