"""What a scenario is: a program that forks with a bus open, for each runtime, and where it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.processes.runtimes import RUNTIMES, Runtime, mailbox

__all__ = ["SCENARIOS", "Place", "Scenario", "goes_on", "queued", "scenario"]

TRANSPORTS = ("seqpacket", "stream", "tcp")


class Place:
    """A runtime, the address of a broker, and a topic that nobody else uses."""

    def __init__(self, runtime: str, address: str, topic: str) -> None:
        self.runtime: Runtime = RUNTIMES[runtime]
        self.address = address
        self.topic = topic

    @property
    def carries_fds(self) -> bool:
        return not self.address.startswith("tcp")

    def connect(self, name: str | None = None) -> Any:
        return self.runtime.connect(self.address, name=name)


@dataclass(frozen=True)
class Scenario:
    main: Callable[[Place], Any]
    runtimes: tuple[str, ...]
    transports: tuple[str, ...]

    def run(self, place: Place) -> None:
        if inspect.iscoroutinefunction(self.main):
            place.runtime.run(functools.partial(self.main, place))
        else:
            self.main(place)


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    runtimes: tuple[str, ...] = tuple(RUNTIMES), transports: tuple[str, ...] = TRANSPORTS
) -> Callable[[Callable[[Place], Any]], Callable[[Place], Any]]:
    """Register a function under its name: a program of the runtime, or a plain one."""

    def register(main: Callable[[Place], Any]) -> Callable[[Place], Any]:
        assert main.__name__ not in SCENARIOS
        SCENARIOS[main.__name__] = Scenario(main, runtimes, transports)
        return main

    return register


async def queued(bus: Any, messages: Any, count: int) -> None:
    """Wait until so many messages lie in a subscription."""
    while len(mailbox(messages)) < count:
        await bus.request("$SYS.status")


async def goes_on(bus: Any, messages: Any, topic: str, *, first: tuple[object, ...] = ()) -> None:
    """The connection works, in both directions: what was queued comes first, then what is published now, in order."""
    for number in range(50):
        await bus.publish(topic, number)
    await bus.flush()
    wanted = [*first, *range(50)]
    assert [(await messages.receive()).payload for _ in wanted] == wanted
    assert (await bus.request("$SYS.status")).payload["totals"]
