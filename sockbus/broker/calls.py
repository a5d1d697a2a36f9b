"""Requests: from who asks to one server, and the reply back.

The ``Switchboard`` hands each request to the server of its topic with the fewest unanswered calls among those below
their concurrency; where all are busy it waits, charged to the requester. It knows how every request ends, and tells
the requester, once. A reply waits where the requester's link has no room; what a stopped requester does not take
within ``REPLY_PATIENCE`` is dropped and its requests end, so that it holds up no server for longer.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import LimitExceeded, NoResponders, ProtocolError, ResponderLost, SockbusError
from ..fd import SharedFds
from ..payload import encode_payload
from ..protocol.frame import Kind, control
from ..protocol.outbox import Lane
from ..protocol.pieces import cut
from ..routing.router import Router
from ..topic import is_reserved
from .call import Call, Queue, Reply, Server

if TYPE_CHECKING:
    from .hub import Hub
    from .link import Link

__all__ = ["REPLY_PATIENCE", "Switchboard"]

# Seconds that a reply waits for a requester who takes nothing.
REPLY_PATIENCE = 1.0


class Switchboard:
    """All servers, and all requests that have not ended."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.router: Router[Server] = Router()
        #: topics that the broker serves itself → what gives the payload
        self.internal: dict[str, Callable[[], object]] = {}
        self._waiting: dict[Queue, collections.OrderedDict[Call, None]] = {}
        self._uses = 0
        self._next_internal = 2

    # Servers

    def serve(self, server: Server) -> None:
        """Put a server in force, and give it what waits."""
        self.router.add(server.pattern, server)
        server.link.servers[server.number] = server
        for queue in self._waiting:
            if server in self._servers(queue):
                server.wanted[queue] = None
        self.feed(server)
        self._hub.watches.look()

    def unserve(self, servers: Sequence[Server]) -> None:
        """End servers of one link: their unanswered calls are lost, and what waited for them alone has no responder."""
        self.router.remove_all((server.pattern, server) for server in servers)
        gone = set(servers)
        for server in servers:
            server.link.servers.pop(server.number, None)
        for link in {server.link for server in servers}:
            lost = [call for call in link.calls.values() if call.server in gone]
            for call in lost:
                del link.calls[call.call_number]
                self._end(call, ResponderLost(f"the server of {call.topic!r} went away before it replied; ask again"))
        for queue in {queue for server in servers for queue in server.wanted}:
            for call in list(self._waiting.get(queue, ())):
                if not self._servers(queue, with_fds=bool(call.nfds)):
                    self._end(call, ResponderLost(f"the last server of {call.topic!r} went away; ask again"))

    def _servers(self, queue: Queue, *, with_fds: bool = False) -> Sequence[Server]:
        """Those that can take the requests of a queue, busy or not; with fds, those that carry them."""
        servers = self.router.plan(queue[0]).sinks
        return [server for server in servers if server.link.carries_fds] if with_fds or queue[1] else servers

    # Requests

    def submit(self, call: Call) -> None:
        """Take a request: hand it over, keep it waiting, or refuse it."""
        call.link.requests[call.number] = call
        if is_reserved(call.topic):
            self._serve_internally(call)
            return
        servers = self._servers(call.queue)
        if call.nfds:
            able = self._servers(call.queue, with_fds=True)
            call.queue = (call.topic, len(able) < len(servers))
        if not servers:
            self._end(call, NoResponders(f"nobody serves {call.topic!r}; is its server running, on this bus?"))
        elif call.nfds and not able:
            self._end(
                call,
                NoResponders(
                    f"no server of {call.topic!r} can receive file descriptors: all are on TCP; run one on UNIX"
                ),
            )
        elif call.queue in self._waiting or not self._dispatch(call, servers):
            self._waiting.setdefault(call.queue, collections.OrderedDict())[call] = None
            for server in self._servers(call.queue):
                server.wanted[call.queue] = None

    def cancel(self, link: Link, number: int) -> None:
        """The requester gave up; one that has ended already is no error, for the two may cross."""
        call = link.requests.get(number)
        if call is not None:
            self._end(call, None)

    def _dispatch(self, call: Call, servers: Sequence[Server]) -> bool:
        best: Server | None = None
        for server in servers:
            if server.outstanding >= server.concurrency:
                continue
            # As many as could be on their way: a server has to keep those of all calls that it is at work on.
            if call.nfds and (server.fds >= self._hub.limits.link_fds or not server.link.carries_fds):
                continue
            if not server.link.outlet.has_call_room(call.nfds):
                server.link.starve(server)
                continue
            if best is None or (server.outstanding, server.last_used) < (best.outstanding, best.last_used):
                best = server
        if best is None:
            return False
        self._uses += 1
        best.last_used = self._uses
        best.outstanding += 1
        best.fds += call.nfds
        call.server = best
        call.call_number = best.link.next_call_number
        best.link.next_call_number += 2
        best.link.calls[call.call_number] = call
        front = control(Kind.CALL, [best.number], correlation=call.call_number)
        best.link.put_message(Lane.CALLS, front, call.link.presence, call.frames, call.fds)
        self._taken(call)
        return True

    def _taken(self, call: Call) -> None:
        """The request's bytes are with its server, or of no use any more."""
        call.link.requests_intake.take(call.cost, call.nfds)
        self._hub.touched[call.link] = None
        if call.fds is not None:
            call.fds.release()
            call.fds = None
        call.frames = ()

    def feed(self, server: Server) -> None:
        """Hand what waits to a server that has room again."""
        for queue in list(server.wanted):
            waiting = self._waiting.get(queue)
            while waiting:
                call = next(iter(waiting))
                if not self._dispatch(call, self._servers(queue)):
                    break
                del waiting[call]
            if waiting:
                if server.outstanding >= server.concurrency:
                    return
            else:
                self._nobody_waits(queue)
                server.wanted.pop(queue, None)

    def _nobody_waits(self, queue: Queue) -> None:
        self._waiting.pop(queue, None)
        for server in self._servers(queue):
            server.wanted.pop(queue, None)

    def _end(self, call: Call, error: SockbusError | None) -> None:
        """The request is over without a reply: tell the requester why, unless it was he who ended it."""
        if call.ended:
            return
        call.ended = True
        call.link.requests.pop(call.number, None)
        if call.server is None:
            waiting = self._waiting.get(call.queue)
            if waiting is not None and call in waiting:
                del waiting[call]
                if not waiting:
                    self._nobody_waits(call.queue)
            self._taken(call)
        if error is not None:
            call.link.put_error(error, call.number)
        # A server that never answers must not keep the links of all who ever asked it.
        del call.link

    # Replies

    def reply(self, link: Link, number: int, frames: Sequence[bytes], cost: int, fds: SharedFds | None) -> None:
        """A whole reply came from a server's link; one to a request that has ended is dropped and counted."""
        call = link.calls.pop(number, None)
        if call is None:
            self._drop_late(link, cost, fds)
            return
        server = call.server
        assert server is not None, "a call in link.calls was handed to a server"
        server.outstanding -= 1
        server.fds -= call.nfds
        if call.ended:
            self._drop_late(link, cost, fds)
        else:
            reply = Reply(call, link, frames, cost, fds, self._hub.now())
            requester = call.link
            if requester.late_replies or not requester.outlet.has_call_room(reply.nfds):
                requester.late_replies.append(reply)
                link.presence.keep()
                self._hub.watched[requester] = None
            else:
                self._hand_back(reply)
        if server.wanted:
            self.feed(server)

    def _drop_late(self, link: Link, cost: int, fds: SharedFds | None) -> None:
        self._hub.counters.late_replies += 1
        link.replies_intake.take(cost, len(fds.fds) if fds is not None else 0)
        if fds is not None:
            fds.release()

    def _hand_back(self, reply: Reply) -> None:
        call = reply.call
        call.ended = True
        requester = call.link
        requester.requests.pop(call.number, None)
        front = control(Kind.ANSWER, correlation=call.number)
        fds = reply.fds if requester.carries_fds else None
        requester.put_message(Lane.CALLS, front, reply.origin.presence, reply.frames, fds)
        self._reply_taken(reply)

    def _reply_taken(self, reply: Reply) -> None:
        reply.origin.replies_intake.take(reply.cost, reply.nfds)
        self._hub.touched[reply.origin] = None
        if reply.fds is not None:
            reply.fds.release()

    def feed_requester(self, link: Link, *, give_up_before: float = -1.0) -> None:
        """Room came back to a requester, or its patience is over for replies that have waited since before."""
        while link.late_replies:
            reply = link.late_replies[0]
            if reply.call.ended:
                self._hub.counters.late_replies += 1
                self._reply_taken(reply)
            elif link.outlet.has_call_room(reply.nfds):
                self._hand_back(reply)
            elif reply.since < give_up_before:
                self._end(
                    reply.call,
                    LimitExceeded(
                        f"the reply to a request on {reply.call.topic!r} was dropped: this connection has taken no "
                        f"replies for {REPLY_PATIENCE:g} s; read faster, or ask for less at once"
                    ),
                )
                continue
            else:
                return
            link.late_replies.popleft()
            reply.origin.presence.let_go()

    # Links

    def link_gone(self, link: Link) -> None:
        """A link has ended: its requests are over, and so are its servers' calls."""
        self.unserve(list(link.servers.values()))
        for call in list(link.requests.values()):
            self._end(call, None)
        self.feed_requester(link)

    def check_reply(self, link: Link, number: int) -> None:
        """ProtocolError when a reply names a call that was never handed to this link."""
        if number % 2 or not 0 < number < link.next_call_number:
            raise ProtocolError(f"a reply names call {number}, which was never issued to this connection")

    def _serve_internally(self, call: Call) -> None:
        give = self.internal.get(call.topic)
        if give is None:
            self._end(
                call, NoResponders(f"the broker serves {', '.join(self.internal)}, and nothing on {call.topic!r}")
            )
            return
        if not call.link.outlet.has_call_room(0):
            self._end(call, LimitExceeded("replies wait unread on this connection; read them before asking for more"))
            return
        number, self._next_internal = self._next_internal, self._next_internal + 2
        frames = cut(Kind.REPLY, b"", encode_payload(give()), sender=0, correlation=number)
        call.ended = True
        call.link.requests.pop(call.number, None)
        front = control(Kind.ANSWER, correlation=call.number)
        call.link.put_message(Lane.CALLS, front, self._hub.presence, frames, None)
        self._taken(call)
