"""A program that takes the messages of one pattern until it is told to finish, and writes down each.

It is now and then slow, drains in the end, and subscribes again when its subscription was ended for being too slow.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from contextlib import AsyncExitStack, ExitStack
from typing import Any, final

from sockbus import BusState, ConnectionLost, Message, SubscriptionStalled

from ..programs import Connect, answer, run
from .loops import Told, beside, entered, entered_blocking, sleep
from .record import Record

__all__ = ["subscribe"]

# Seconds between two looks at whether this program is to finish.
_LOOK = 0.02


@final
class Script:
    """What is written down, and when to be slow."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.pattern: str = options["pattern"]
        self.how: dict[str, Any] = {"overflow": options["overflow"], "capacity": options["capacity"]}
        self.told = Told()
        self.is_over = False
        #: in force now, under this name
        self.name = ""
        self._process: str = options["name"]
        self._count = itertools.count()
        self._rest: float = options["rest"]
        self._chance = random.Random(options["seed"])
        self._record = Record(options["record"])
        self._answered = False

    def subscribe(self) -> None:
        """It is asked for."""
        name = f"{self._process}.{next(self._count)}"
        self._record.note("subscribe", subscription=name, pattern=self.pattern, overflow=self.how["overflow"])
        self._asked = name

    def entered(self) -> None:
        """It is in force."""
        self.name = self._asked
        self.in_force()
        if not self._answered:
            self._answered = True
            answer()

    def in_force(self) -> None:
        """It is, again."""
        if self.name:
            self._record.note("in force", subscription=self.name)

    def take(self, message: Message) -> float:
        """A message came; how long to rest."""
        publisher, number, _ = message.payload
        self._record.note(
            "take",
            subscription=self.name,
            publisher=publisher,
            number=number,
            topic=message.topic,
            lost=message.lost,
            interrupted=message.interrupted,
            retained=message.retained,
        )
        dice = self._chance.random()
        return self._rest * self._chance.random() if dice < 0.02 else 0.0

    def drain(self) -> bool:
        """Whether to drain now."""
        if not self.told or not self.name:
            return False
        self._record.note("drain", subscription=self.name)
        return True

    def ended(self, how: str, subscription: Any) -> None:
        """Nothing more comes."""
        name, self.name = self.name, ""
        self.is_over = how == "drained"
        self._record.note(
            "end", subscription=name, how=how, lost=subscription.lost, interrupted=subscription.interrupted
        )


def subscribe(runtime: str, **options: Any) -> None:
    """Until told to finish; answers when in force."""
    run(runtime, _subscribe, _subscribe_blocking, options)


async def _subscribe(connect: Connect, options: dict[str, Any]) -> None:
    script = Script(options)

    async def take() -> None:
        while not script.is_over:
            script.subscribe()
            async with bus.subscribe(script.pattern, **script.how) as messages:
                script.entered()
                how = "drained"
                try:
                    async for message in messages:
                        if seconds := script.take(message):
                            await sleep(connect, seconds)
                except SubscriptionStalled:
                    how = "stalled"
                script.ended(how, messages)

    async def watch() -> None:
        while (state := await bus.state_changed()) is not BusState.CLOSED:
            if state is BusState.CONNECTED:
                script.in_force()

    async def finish() -> None:
        while True:
            if script.drain():
                await bus.drain()
            await sleep(connect, _LOOK)

    async with AsyncExitStack() as stack:
        bus = await entered(stack, connect, options["address"])
        await beside(connect, take, watch, finish)


def _subscribe_blocking(options: dict[str, Any]) -> None:
    script = Script(options)

    def watch() -> None:
        while (state := bus.state_changed()) is not BusState.CLOSED:
            if state is BusState.CONNECTED:
                script.in_force()

    def finish() -> None:
        while not script.is_over:
            if script.drain():
                try:
                    bus.drain()
                except ConnectionLost:
                    if not script.is_over:
                        raise
            time.sleep(_LOOK)

    with ExitStack() as stack:
        bus = entered_blocking(stack, options["address"])
        threads = [threading.Thread(target=target) for target in (watch, finish)]
        for thread in threads:
            thread.start()
        while not script.is_over:
            script.subscribe()
            with bus.subscribe(script.pattern, **script.how) as messages:
                script.entered()
                how = "drained"
                try:
                    for message in messages:
                        if seconds := script.take(message):
                            time.sleep(seconds)
                except SubscriptionStalled:
                    how = "stalled"
                script.ended(how, messages)
    for thread in threads:
        thread.join()
