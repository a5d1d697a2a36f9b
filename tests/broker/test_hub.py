"""What is left of a peer that has gone: nothing. A broker inside the test's own process, so that its accounts show."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from sockbus.address import Address
from sockbus.broker.call import Call, Reply
from sockbus.broker.config import Config, Limits
from sockbus.broker.hub import Hub
from sockbus.broker.link import Link
from sockbus.broker.parcel import Parcel
from sockbus.broker.server import Server
from sockbus.broker.sink import Sink
from sockbus.protocol.frame import Flag, Kind
from tests.broker.cases import CASES
from tests.broker.conftest import TRANSPORTS
from tests.broker.outside import eventually
from tests.broker.raw import SHUTDOWN, Raw, open_files, pieced
from tests.broker.test_bad_input import say

Act = Callable[["Stage"], None]


class Stage:
    """One broker and how to reach it; ``act`` runs a blocking script against it."""

    def __init__(self, server: Server, addresses: dict[str, str]) -> None:
        self.hub = server.hub
        self.addresses = addresses
        self.transport = "stream"

    def peer(self, **options: Any) -> Raw:
        return Raw(self.addresses[self.transport], **options)

    async def act(self, script: Act) -> None:
        await trio.to_thread.run_sync(script, self)

    async def is_empty(self) -> None:
        """Wait until the hub is as it was before the first peer came."""
        await self.act(lambda stage: eventually(lambda: left_behind(stage.hub) == CLEAN))
        assert left_behind(self.hub) == CLEAN
        gc.collect()
        kept = [thing for thing in gc.get_objects() if isinstance(thing, (Link, Call, Reply, Parcel, Sink))]
        assert not kept


def left_behind(hub: Hub) -> dict[str, object]:
    """Every account of a hub that peers change."""
    return {
        "links": len(hub.links),
        "watched": len(hub.watched),
        "touched": len(hub.touched),
        "groups": len(hub.groups),
        "untidy": len(hub.untidy),
        "untold": len(hub.untold),
        "watched for stalls": len(hub.stalls._clocks),
        "queued bytes": hub.queued_bytes,
        "held fds": hub.held_fds,
        "sinks": len(hub.router._index),
        "servers": len(hub.switchboard.router._index),
        "waiting requests": len(hub.switchboard._waiting),
        "accounts": {name: account.orphaned_bytes for name, account in hub.admission._accounts.items()},
        "connections": hub.admission._connections,
        "kept values": len(hub.retained.values),
        "kept bytes": hub.retained.bytes + hub.retained.old_bytes,
        "kept fds": hub.retained.held_fds,
        "watches": len(hub.watches._waiting),
        "pidfds": len(hub.mortality._links) + len(hub.mortality._pidfds),
        "known by the broker": len(hub.presence._audience),
    }


CLEAN = {name: {} if name == "accounts" else 0 for name in left_behind(Hub(Limits()))}


@pytest.fixture
def unlogged() -> Iterator[None]:
    """The records of a log that pytest captures would keep the links alive that they name."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
async def stage(nursery: trio.Nursery, place: Path, unlogged: None) -> Stage:
    config = Config([Address.parse(text) for text in (f"unix:{place}/bus", "tcp:127.0.0.1:0")])
    server = Server(config)
    await nursery.start(server.serve)
    tcp = server.addresses[1]
    return Stage(
        server, {"seqpacket": f"seqpacket:{place}/bus/seqpacket", "stream": f"stream:{place}/bus/stream", "tcp": tcp}
    )


def leaves_publishes_that_wait_for_itself(stage: Stage) -> None:
    with stage.peer() as peer:
        peer.subscribe("self", credit=(1, 1, 1))
        for _ in range(5):
            peer.send(peer.frame(Kind.PUBLISH, "self", bytes(1000)))


def leaves_publishes_that_wait_for_another(stage: Stage) -> None:
    with stage.peer() as reader, stage.peer() as other:
        reader.subscribe("another", credit=(1, 1, 1))
        other.subscribe("another", credit=(1, 1, 1), group="g")
        with stage.peer() as peer:
            for _ in range(5):
                peer.send(peer.frame(Kind.PUBLISH, "another", bytes(1000)))
            peer.request("$SYS.status")
        reader.expect(Kind.PUBLISH)
        other.expect(Kind.PUBLISH)
        reader.send(reader.control(Kind.CREDIT, [1, 0, 0], correlation=1))


def leaves_fds_that_wait(stage: Stage) -> None:
    with stage.peer() as reader, stage.peer() as peer, open_files(4) as fds:
        reader.subscribe("files", credit=(1, 1, 1))
        for _ in range(5):
            peer.send(peer.frame(Kind.PUBLISH, "files", fds=4), fds)
        peer.send(peer.frame(Kind.PUBLISH, "files", pieced(100, b"x"), 3, fds=4, flags=Flag.PIECED), fds)
        peer.send(peer.frame(Kind.REQUEST, "files", pieced(100, b"x"), 5, fds=4, flags=Flag.PIECED), fds)
        reader.expect(Kind.PUBLISH)


def links_in_memory() -> list[Link]:
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, Link)]


def leaves_what_dropping_subscriptions_keep(stage: Stage) -> None:
    """The publishers go first, and nothing of theirs is kept but the messages."""
    with stage.peer() as reader, open_files(4) as fds:
        for number, overflow in enumerate(("drop_oldest", "drop_newest", "latest", "disconnect")):
            reader.subscribe("kept", 2 * number + 1, (9, 1 << 20, 9), overflow=overflow)
        for _ in range(3):
            with stage.peer() as peer:
                for _ in range(8):
                    peer.send(peer.frame(Kind.PUBLISH, "kept", bytes(100)) * 3)
                peer.send(peer.frame(Kind.PUBLISH, "kept", bytes(100), 3, flags=Flag.RECEIPT))
                if peer.carries_fds:
                    peer.send(peer.frame(Kind.PUBLISH, "kept", fds=4), fds)
                peer.settle()
        assert reader.expect(Kind.ERROR).correlation == 7
        eventually(lambda: len(links_in_memory()) == 1)
        assert stage.hub.queued_bytes > 0


def leaves_subscriptions_that_wait_and_one_that_has_stalled(stage: Stage) -> None:
    with stage.peer() as reader, stage.peer() as peer:
        for number, stall in ((1, 0.05), (3, None), (5, float("inf"))):
            reader.subscribe("stalls", number, (1, 1, 1), stall=stall)
        peer.send(peer.frame(Kind.PUBLISH, "stalls") * 5)
        assert reader.expect(Kind.ERROR).correlation == 1


def leaves_messages_in_pieces(stage: Stage) -> None:
    with stage.peer() as peer:
        for kind, number in ((Kind.PUBLISH, 1), (Kind.REQUEST, 3), (Kind.REQUEST, 5)):
            peer.send(peer.frame(kind, "pieces", pieced(1 << 20, b"x" * 1000), number, flags=Flag.PIECED))
            peer.send(peer.frame(Kind.PIECE, payload=b"x" * 1000, correlation=number))


def leaves_requests_that_wait(stage: Stage) -> None:
    with stage.peer() as server:
        server.serve("busy", concurrency=1)
        with stage.peer() as peer:
            for number in range(1, 20, 2):
                peer.send(peer.frame(Kind.REQUEST, "busy", bytes(1000), number))
            server.expect(Kind.REQUEST)
            with stage.peer() as other:
                other.send(other.frame(Kind.REQUEST, "busy", bytes(1000), 1))
            server.send(server.frame(Kind.REPLY, payload=pieced(100, b"x"), correlation=2, flags=Flag.PIECED))


def leaves_requests_that_a_server_has(stage: Stage) -> None:
    with stage.peer() as server, stage.peer() as peer:
        server.serve("slow")
        for number in range(1, 20, 2):
            peer.send(peer.frame(Kind.REQUEST, "slow", bytes(1000), number))
        server.expect(Kind.REQUEST)
        server.send(server.control(Kind.UNSERVE, correlation=1))
        assert peer.expect(Kind.ERROR).body["code"] == "responder-lost"
        server.send(server.frame(Kind.REPLY, correlation=2))


def leaves_replies_that_wait_for_room(stage: Stage) -> None:
    """The requester reads nothing; the server goes before it, so that its replies outlive it."""
    big = bytes(60_000)
    with stage.peer() as peer, stage.peer() as server:
        server.serve("large", concurrency=400)
        for number in range(1, 800, 2):
            peer.send(peer.frame(Kind.REQUEST, "large", b"\xc0", number))
        peer.settle()
        number = 0
        while not any(len(link.late_replies) > 3 for link in stage.hub.links.values()):
            number += 2
            server.send(server.frame(Kind.REPLY, payload=big, correlation=number))
            server.request("$SYS.status")


def leaves_requests_on_many_topics_to_a_busy_server(stage: Stage) -> None:
    with stage.peer() as server, stage.peer() as first:
        server.serve("many.*", concurrency=1)
        first.send(first.frame(Kind.REQUEST, "many.x", correlation=1))
        server.expect(Kind.REQUEST)
        with stage.peer() as peer:
            for number in range(1, 200, 2):
                peer.send(peer.frame(Kind.REQUEST, f"many.t{number}", correlation=number))
                peer.send(peer.control(Kind.CANCEL, correlation=number))
            peer.settle()
        # What nobody waits for any more is forgotten while the server is still busy.
        assert not any(link.servers[1].wanted for link in stage.hub.links.values() if link.servers)


def leaves_a_server_that_never_answers(stage: Stage) -> None:
    with stage.peer() as server:
        server.serve("never")
        for _ in range(10):
            with stage.peer() as peer:
                peer.send(peer.frame(Kind.REQUEST, "never", correlation=1))
                server.expect(Kind.REQUEST)
        # A link that is closing is there a moment longer than its entry.
        eventually(lambda: gc.collect() >= 0 and sum(isinstance(thing, Link) for thing in gc.get_objects()) == 1)


def leaves_a_backlog_unread(stage: Stage) -> None:
    with stage.peer() as reader, stage.peer() as peer:
        reader.subscribe("backlog", credit=(10_000, 1 << 30, 64))
        for _ in range(100):
            peer.send(peer.frame(Kind.PUBLISH, "backlog", bytes(30_000)))
        peer.settle()


def leaves_groups_and_servers(stage: Stage) -> None:
    with stage.peer() as first, stage.peer() as second:
        for number in range(1, 40, 2):
            first.subscribe(f"g.{number % 3}", number, group=f"g{number % 2}", credit=(1, 1, 1))
            second.subscribe(f"g.{number % 3}", number, group=f"g{number % 2}", credit=(1, 1, 1))
            second.serve(f"s.{number}", number + 1000)
            first.send(first.frame(Kind.PUBLISH, "g.1", bytes(100)))
        first.send(first.control(Kind.UNSUBSCRIBE, correlation=1))
        first.send(first.control(Kind.GOODBYE, {"text": "left"}))
        assert first.until_end()


def leaves_watches(stage: Stage) -> None:
    with stage.peer() as peer:
        for number in range(1, 100, 2):
            peer.send(peer.control(Kind.WATCH, [1, 0], correlation=number, topic="nobody"))
            if number % 3:
                peer.send(peer.control(Kind.UNWATCH, correlation=number))
        peer.settle()


def leaves_a_will_that_waits(stage: Stage) -> None:
    with stage.peer() as reader:
        reader.subscribe("will", credit=(1, 1, 1))
        reader.subscribe("$SYS.peer.*", 3, credit=(1, 1, 1))
        for _ in range(5):
            with stage.peer() as peer:
                peer.send(peer.frame(Kind.WILL, "will", bytes(5000), 1))
                peer.expect(Kind.OK)


def leaves_kept_values_that_wait_and_are_cleared(stage: Stage) -> None:
    with stage.peer() as reader, stage.peer() as peer:
        number = 1
        for turn in range(3):
            for topic in range(5):
                number += 2
                count = 0 if stage.transport == "tcp" else 1
                with open_files(count) as fds:
                    peer.send(peer.frame(Kind.PUBLISH, f"k.{topic}", b"1", number, flags=Flag.RETAIN, fds=count), fds)
                peer.expect(Kind.OK)
            reader.subscribe("k.*", 2 * turn + 1, (1, 1, 1))
        for topic in range(5):
            number += 2
            peer.send(peer.frame(Kind.PUBLISH, f"k.{topic}", b"\xc0", number, flags=Flag.RETAIN))
        peer.request("$SYS.retained")


ACTS: list[Act] = [value for name, value in list(globals().items()) if name.startswith("leaves_")]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("act", ACTS)
async def test_peer_that_has_gone_leaves_nothing_behind(act: Act, transport: str, stage: Stage) -> None:
    if transport == "tcp" and act is leaves_fds_that_wait:
        pytest.skip("TCP carries no fds")
    stage.transport = transport
    await stage.act(act)
    await stage.is_empty()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_peer_that_was_sent_away_leaves_nothing_behind(transport: str, stage: Stage) -> None:
    stage.transport = transport
    for case in CASES:
        if transport in case.on:

            def script(stage: Stage, case: Any = case) -> None:
                with stage.peer(greet=case.greet) as peer:
                    for step in case.build(peer):
                        if not say(peer, step):
                            break
                    peer.send(SHUTDOWN)
                    peer.until_end()

            await stage.act(script)
            await stage.act(lambda stage: eventually(lambda: left_behind(stage.hub) == CLEAN))
    await stage.is_empty()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_no_offer_is_more_work_than_others_can_wait_for(
    transport: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages on many topics, each of which goes to 40 subscriptions: they are gathered, but not all at once."""
    stage.transport = transport
    hub, offers = stage.hub, list[tuple[int, int]]()

    def offer(parcel: Parcel, sinks: Sequence[Sink]) -> None:
        offers.append((parcel.count, len(sinks)))
        Hub.offer(hub, parcel, sinks)

    monkeypatch.setattr(hub, "offer", offer)

    def script(stage: Stage) -> None:
        with stage.peer() as reader, stage.peer() as peer:
            for number in range(40):
                overflow = "latest" if number else "block"
                reader.subscribe("many.*", 2 * number + 1, (1, 1, 1), overflow=overflow)
            frames = [peer.frame(Kind.PUBLISH, f"many.{number}") for number in range(1500)]
            peer.send(b"".join(frames[:750]))
            peer.send(b"".join(frames[750:]))
            peer.request("$SYS.status")
            (link,) = [link for link in stage.hub.links.values() if link.number == peer.number]
            assert len(link.pump._held) == len([count for count, sinks in offers if sinks])
            # What the latest were is not kept for the one that is still to take them.
            assert all(parcel._newest is None for parcel in link.pump._held)

    await stage.act(script)
    counts = [count for count, sinks in offers if sinks == 40]
    assert sum(counts) == 1500
    assert 1 < max(counts) <= 16_384 / 40 + 1
    await stage.is_empty()
