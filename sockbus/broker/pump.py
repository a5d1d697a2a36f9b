"""What the frames of one peer do: the pump between its inbox and everybody's outboxes.

A turn works through the whole frames of one receive and never awaits. The path of a plain publish is flat: a look-up of
the plan by the topic's bytes, one parcel for a run, one offer for each sink. Everything else is dispatched by its
kind. What is not as docs/wire.md says raises, and ends the link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from ..errors import LimitExceeded, ProtocolError
from ..fd import SharedFds, close_fds
from ..payload import NIL
from ..protocol import body
from ..protocol.frame import Flag, Kind, control
from ..protocol.handshake import LIFE_KINDS, Handshake, Role, State
from ..protocol.inbox import MAX_RUN, Run
from ..routing.router import Plan
from ..topic import parse_topic
from .arrivals import Arrivals, Frames
from .call import Call
from .clerk import Clerk, publishable
from .parcel import Parcel, Tally
from .sink import Sink

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Pump"]

_PUBLISH = int(Kind.PUBLISH)
_ANSWERED = int(Flag.RECEIPT | Flag.RETAIN)
# Plans that a link keeps by topic; a plan of many sinks is looked up in the router instead, for a stale one would keep
# its sinks alive.
PLANS = 1024
PLANNED_SINKS = 64
# Messages times sinks that may be gathered: a group deals with each of them, and so does a subscription to the latest
# values where each has a topic of its own. Nobody else has a turn meanwhile, for some 30 ms.
GATHERED_OFFERS = 16_384

# Seconds after which a turn lets others run: one frame can cost milliseconds (a wildcard that comes or goes, a fan-out
# to thousands), and one receive can bring thousands of frames.
TURN_SECONDS = 0.005


class Pump:
    """The frames of one link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.hub = link.hub
        self.handshake = Handshake(Role.BROKER)
        self.arrivals = Arrivals(link.hub)
        # Of the frames to come: 0 until the handshake is done.
        self._sender = 0
        self._intake = link.publish_intake
        self._plans: dict[bytes, Plan[Sink]] = {}
        # What waits somewhere, and what each costs besides its bytes.
        self._held: dict[Parcel, int] = {}
        #: the sum of that
        self.overhead_bytes = 0
        # What the unanswered flush waits for: parcels, and a publish of which pieces are to come.
        self._barrier: set[Parcel] = set()
        self._flush = self._flush_awaits = 0
        self._publishing = 0
        self._gathered: Run | None = None
        self._gathered_sinks: tuple[Sink, ...] = ()
        self._gathered_most = 0
        self._clerk = Clerk(link)
        self._handlers: dict[int, Callable[[Run], None]] = {
            **self._clerk.handlers,
            Kind.PUBLISH: self._on_publish,
            Kind.PIECE: self.arrivals.on_piece,
            Kind.REQUEST: self._on_request,
            Kind.REPLY: self._on_reply,
            Kind.FLUSH: self._on_flush,
        }

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done."""
        return self.handshake.state is State.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether the peer has said goodbye."""
        return self.handshake.state is State.CLOSED

    def turn(self, runs: Iterator[Run]) -> bool:
        """Work through runs until they or ``TURN_SECONDS`` end; whether time ended. SockbusError on a violation."""
        end = perf_counter() + TURN_SECONDS
        try:
            for run in runs:
                if run.sender != self._sender:
                    close_fds(run.fds)
                    raise ProtocolError(f"a frame names peer {run.sender} as its sender; this is peer {self._sender}")
                if run.kind == _PUBLISH and not (run.flags or run.declared_fds or run.correlation or self._publishing):
                    self._publish_run(run)
                else:
                    self._publish_gathered()
                    try:
                        self._dispatch(run)
                    except BaseException:
                        close_fds(run.fds)
                        raise
                    if self.handshake.state is State.CLOSED:
                        return False
                if perf_counter() > end:
                    return True
        finally:
            # Also what came before a violation.
            self._publish_gathered()
        if self.arrivals or self.link.inbox.unfinished_bytes:
            self.hub.watched[self.link] = None
        return False

    def open(self) -> None:
        """The handshake is done."""
        self._sender = self.link.number

    @property
    def held_bytes(self) -> int:
        """The cost of what was published and waits somewhere."""
        return sum(parcel.cost for parcel in self._held)

    @property
    def is_waiting(self) -> bool:
        """Whether something that was published waits somewhere, or has not come whole."""
        return bool(self._held or self.arrivals)

    def parcel_done(self, parcel: Parcel) -> int:
        """A parcel has left every sink: what it cost besides its bytes, and the flush that waits for it."""
        overhead = self._held.pop(parcel, 0)
        self.overhead_bytes -= overhead
        if self._barrier:
            self._barrier.discard(parcel)
            self._check_flushed()
        return overhead

    def _dispatch(self, run: Run) -> None:
        handler = self._handlers.get(run.kind)
        if handler is None or self.handshake.state is not State.OPEN or run.kind in LIFE_KINDS:
            kind = Kind(run.kind)
            self.handshake.received(kind)
            if handler is None:
                raise ProtocolError(f"a {kind.name} frame came, which only the broker sends")
        handler(run)

    # Messages

    def _publish_run(self, run: Run) -> None:
        """Take a run of plain publishes, and gather it with its neighbours whose plans have the same sinks."""
        if self.handshake.state is not State.OPEN:
            self.handshake.received(Kind.PUBLISH)
        plan = self._plans.get(run.topic)
        if plan is None or plan.stale:
            plan = self._plan(run.topic)
        self.arrivals.check_run(run)
        self._intake.start_run(run)
        self.hub.counters.messages_in += run.count
        gathered = self._gathered
        if gathered is not None:
            sinks = self._gathered_sinks
            if (
                run.start == gathered.end
                and run.buffer is gathered.buffer
                and run.end - gathered.start <= MAX_RUN
                and gathered.count < self._gathered_most
                and (plan.sinks is sinks or (len(sinks) <= PLANNED_SINKS and plan.sinks == sinks))
            ):
                gathered.end = run.end
                gathered.count += run.count
                return
            self._publish_gathered()
        self._gathered, self._gathered_sinks = run, plan.sinks
        self._gathered_most = GATHERED_OFFERS // (len(plan.sinks) or 1)

    def _publish_gathered(self) -> None:
        run, self._gathered = self._gathered, None
        if run is not None:
            parcel = Parcel(self.link, (run.data,), run.count, run.end - run.start)
            self._offer(self._gathered_sinks, parcel)

    def _offer(self, sinks: tuple[Sink, ...], parcel: Parcel) -> None:
        self.link.presence.keep()
        self.hub.offer(parcel, sinks)
        if parcel.pending:
            parcel.forget_newest()
            self._held[parcel] = overhead = parcel.overhead
            self.overhead_bytes += overhead

    def _plan(self, raw: bytes) -> Plan[Sink]:
        plan = self.hub.router.plan(publishable(raw))
        if len(plan.sinks) <= PLANNED_SINKS:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[raw] = plan
        return plan

    def _on_publish(self, run: Run) -> None:
        plan = self._plans.get(run.topic)
        if plan is None or plan.stale:
            self._plan(run.topic)
        if self._publishing:
            raise ProtocolError(f"a publish came before the last piece of publish {self._publishing}")
        if run.correlation:
            self._clerk.check_number(run.correlation)
        self.arrivals.start(run, self._intake, self._whole_publish)
        if run.correlation in self.arrivals:
            self._publishing = run.correlation

    def _whole_publish(self, first: Run, frames: Frames, cost: int, shared: SharedFds | None) -> None:
        self._publishing = 0
        # Subscriptions may have come and gone since the first piece.
        plan = self._plan(first.topic)
        parcel: Parcel | None = None
        if not first.flags & Flag.RETAIN or self._kept(first, frames, cost, shared):
            tally: Tally | None = None
            if first.flags & Flag.RECEIPT:
                tally = Tally(self.link.presence, first.correlation, len(plan.sinks))
                if not plan.sinks:
                    tally.add()
            self.hub.counters.messages_in += 1
            answered = bool(first.flags & _ANSWERED)
            parcel = Parcel(self.link, frames, 1, cost, shared, tally, answered=answered)
            self._offer(plan.sinks, parcel)
        if self._flush_awaits:
            # No publish comes between the pieces of another, so it is this one.
            self._flush_awaits = 0
            if parcel is not None and parcel.pending:
                self._barrier.add(parcel)
            self._check_flushed()

    def _kept(self, first: Run, frames: Frames, cost: int, shared: SharedFds | None) -> bool:
        """Keep a message as the last value of its topic and say so, or that it cannot be; whether it is."""
        total, _, at = first.parts()
        clears = total == len(NIL) and first.buffer[at : first.end] == NIL and not first.declared_fds
        link = self.link
        try:
            self.hub.retained.keep(first.topic.decode(), frames, cost, shared, link.presence, clears=clears)
        except LimitExceeded as error:
            link.put_error(error, first.correlation)
            self._intake.take(cost, first.declared_fds)
            if shared is not None:
                shared.release()
            return False
        if not first.flags & Flag.RECEIPT:
            link.put_control(control(Kind.OK, correlation=first.correlation))
        return True

    def _on_request(self, run: Run) -> None:
        self._clerk.check_number(run.correlation)
        limit = self.hub.limits.pending_requests
        # What comes in pieces counts from its first frame on, or there would be any number of them.
        if self._pending_requests() >= limit:
            raise LimitExceeded(
                f"{limit} requests are unanswered, as many as pending_requests allows; wait for replies"
            )
        parse_topic(run.topic)
        self.arrivals.start(run, self.link.requests_intake, self._whole_request)

    def _whole_request(self, first: Run, frames: Frames, cost: int, shared: SharedFds | None) -> None:
        if first.correlation in self.link.requests:
            raise ProtocolError(f"request {first.correlation} was started twice")
        self.hub.counters.requests += 1
        call = Call(self.link, first.correlation, first.topic.decode(), frames, cost, shared)
        self.hub.switchboard.submit(call)

    def _pending_requests(self) -> int:
        started = self.arrivals.of_kind(Kind.REQUEST) if self.arrivals else 0
        return len(self.link.requests) + started

    def _on_reply(self, run: Run) -> None:
        self.hub.switchboard.check_reply(self.link, run.correlation)
        self.arrivals.start(run, self.link.replies_intake, self._whole_reply)

    def _whole_reply(self, first: Run, frames: Frames, cost: int, shared: SharedFds | None) -> None:
        self.hub.switchboard.reply(self.link, first.correlation, frames, cost, shared)

    # Flushing

    def _on_flush(self, run: Run) -> None:
        body.nothing(run)
        self._clerk.check_number(run.correlation)
        if self._flush:
            raise LimitExceeded(f"flush {self._flush} is not answered yet; one may be outstanding")
        self._flush = run.correlation
        self._barrier = set(self._held)
        self._flush_awaits = self._publishing
        self._check_flushed()

    def _check_flushed(self) -> None:
        if self._barrier or self._flush_awaits:
            return
        number, self._flush = self._flush, 0
        self.link.put_control(control(Kind.OK, correlation=number))
