"""A program that publishes numbers until it is told to finish, and writes down what came of each.

Plain messages on a few topics of its own, now and then one with a receipt, one that is kept, one in pieces, a flush,
and a request.
"""

from __future__ import annotations

import random
import time
from contextlib import AsyncExitStack, ExitStack
from typing import Any, NamedTuple, final

from sockbus import ConnectionLost, LimitExceeded, Receipt, RequestError, SockbusError

from ..programs import Connect, answer, run
from .loops import Told, entered, entered_blocking, sleep
from .record import Record

__all__ = ["publish"]

TOPICS = 4
_LARGE = b"x" * 100_000


class Step(NamedTuple):
    """What to do next: "publish", "flush", "ask" or "rest"."""

    verb: str
    topic: str = ""
    payload: Any = None
    receipt: bool = False
    retain: bool = False
    seconds: float = 0.0


@final
class Script:
    """What a publisher does, at random but the same for a seed, and what it writes down of it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._name: str = options["name"]
        self._slot: str = options["slot"]
        self._seconds: float = options["rest"]
        self._chance = random.Random(options["seed"])
        self._record = Record(options["record"])
        self._told = Told()
        self._number = -1
        self._in_doubt = 0

    def next(self) -> Step | None:
        """What to do now; None when it was told to finish."""
        if self._told:
            return None
        dice = self._chance.random()
        if dice < 0.1:
            return Step("rest", seconds=self._seconds * 2 * self._chance.random())
        if dice < 0.12:
            return Step("flush")
        if dice < 0.13:
            return Step("ask", "echo", [self._name, self._number])
        retain = dice < 0.15
        topic = f"kept.{self._name}" if retain else f"t.{self._slot}.{self._chance.randrange(TOPICS)}"
        size = self._chance.choice((0, 0, 10, 500))
        filling = _LARGE if dice > 0.998 else bytes(size)
        return Step("publish", topic, [self._name, self._number + 1, filling], 0.15 < dice < 0.2, retain)

    def begin(self, step: Step, in_doubt: int) -> None:
        """It is published now."""
        self.look(in_doubt)
        self._number += 1
        self._note("begin", topic=step.topic, retain=step.retain)

    def done(self, receipt: Receipt | None, in_doubt: int) -> None:
        """That has returned."""
        counts = receipt and [receipt.matched, receipt.delivered, receipt.dropped, receipt.without_fds]
        self._note("done", receipt=counts)
        self.look(in_doubt)

    def failed(self, error: SockbusError, in_doubt: int) -> None:
        """That has raised."""
        if isinstance(error, ConnectionLost):
            self._note("in doubt")
        elif isinstance(error, LimitExceeded):
            self._note("refused")
        else:
            raise error
        self.look(in_doubt)

    def confirmed(self, in_doubt: int) -> None:
        """Everything so far is with the broker."""
        self.look(in_doubt)
        self._note("confirmed")

    def look(self, in_doubt: int) -> None:
        """Some may be lost with a connection."""
        if in_doubt != self._in_doubt:
            self._in_doubt = in_doubt
            self._note("interrupted", in_doubt=in_doubt)

    def replied(self, asked: Step, payload: object) -> None:
        """A reply came."""
        if payload != asked.payload:
            self._note("wrong reply", asked=asked.payload, reply=repr(payload)[:80])

    def left(self, in_doubt: int) -> None:
        """The bus was left."""
        self.look(in_doubt)
        self._note("left")
        self._record.close()

    def _note(self, event: str, **what: object) -> None:
        self._record.note(event, publisher=self._name, number=self._number, **what)


def publish(runtime: str, **options: Any) -> None:
    """Until told to finish; answers when connected."""
    run(runtime, _publish, _publish_blocking, options)


async def _publish(connect: Connect, options: dict[str, Any]) -> None:
    script = Script(options)
    async with AsyncExitStack() as stack:
        bus = await entered(stack, connect, options["address"])
        answer()
        while (step := script.next()) is not None:
            try:
                match step.verb:
                    case "rest":
                        await sleep(connect, step.seconds)
                    case "flush":
                        await bus.flush()
                        script.confirmed(bus.in_doubt)
                    case "ask":
                        script.replied(step, (await bus.request(step.topic, step.payload, timeout=5.0)).payload)
                    case _:
                        script.begin(step, bus.in_doubt)
                        receipt = await bus.publish(step.topic, step.payload, receipt=step.receipt, retain=step.retain)
                        script.done(receipt, bus.in_doubt)
            except (ConnectionLost, LimitExceeded, RequestError) as error:
                if step.verb == "publish":
                    script.failed(error, bus.in_doubt)
    script.left(bus.in_doubt)


def _publish_blocking(options: dict[str, Any]) -> None:
    script = Script(options)
    with ExitStack() as stack:
        bus = entered_blocking(stack, options["address"])
        answer()
        while (step := script.next()) is not None:
            try:
                match step.verb:
                    case "rest":
                        time.sleep(step.seconds)
                    case "flush":
                        bus.flush()
                        script.confirmed(bus.in_doubt)
                    case "ask":
                        script.replied(step, bus.request(step.topic, step.payload, timeout=5.0).payload)
                    case _:
                        script.begin(step, bus.in_doubt)
                        receipt = bus.publish(step.topic, step.payload, receipt=step.receipt, retain=step.retain)
                        script.done(receipt, bus.in_doubt)
            except (ConnectionLost, LimitExceeded, RequestError) as error:
                if step.verb == "publish":
                    script.failed(error, bus.in_doubt)
    script.left(bus.in_doubt)
