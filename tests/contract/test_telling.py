"""What a bus tells a program's log: whoever listens there, the bus goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sockbus import ConnectionLost
from sockbus.protocol.frame import Kind
from tests.contract.runtime import Runtime
from tests.contract.scripted import Scripted
from tests.contract.test_keeping import script

__all__ = ["script"]

Listen = Callable[[Callable[[str], object]], None]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Have a program's own code called with each line of the log."""
    logger = logging.getLogger("sockbus.client")
    handlers: list[logging.Handler] = []

    def listen(call: Callable[[str], object]) -> None:
        handler = logging.Handler()
        handler.emit = lambda record: call(record.getMessage())  # type: ignore[method-assign, assignment]  # a fake
        handlers.append(handler)
        logger.addHandler(handler)

    yield listen
    for handler in handlers:
        logger.removeHandler(handler)


def play(script: Scripted) -> int:
    """Be lost with the first publish, and be there again; how many publishes come then."""
    first = script.accept()
    first.send(first.welcome())
    first.wait_for(Kind.PUBLISH)
    first.close()
    then = script.accept()
    then.send(then.welcome())
    # The test's own, and that of leaving.
    then.send(then.ok(Kind.FLUSH))
    then.send(then.ok(Kind.FLUSH))
    return then.seen[Kind.PUBLISH]


async def test_log_handler_that_raises_harms_nobody(
    runtime: Runtime, script: Scripted, listen: Listen, capfd: pytest.CaptureFixture[str]
) -> None:
    async def use() -> None:
        async with runtime.connect(script.address) as bus:
            waiting: list[int] = []

            def fail(_: str) -> None:
                # All who waited have been answered by now.
                waiting.append(len(list(bus._client.session.orders.waiting())))
                raise ZeroDivisionError

            listen(fail)
            with pytest.raises(ConnectionLost):
                await bus.publish("t", receipt=True)
            await bus.flush()
            assert waiting == [0, 0]

    await runtime.gather(lambda: runtime.in_thread(lambda: play(script)), use)
    written = capfd.readouterr().err
    assert written.count("--- Logging error ---") == written.count("\nZeroDivisionError") == 2


async def test_log_handler_may_use_the_bus_that_it_is_told_of(
    runtime: Runtime, script: Scripted, listen: Listen
) -> None:
    async def use() -> None:
        async with runtime.connect(script.address) as bus:
            # A blocking bus as a program has it: its calls are made where the handler is called.
            used = getattr(bus, "_bus", bus)
            steps: list[Any] = []
            listen(lambda line: steps.append(used.publish("log", line)))
            with pytest.raises(ConnectionLost):
                await bus.publish("t", receipt=True)
            await bus.flush()
            for step in steps:
                if step is not None:
                    await step
            assert len(steps) == 2

    received, _ = await runtime.gather(lambda: runtime.in_thread(lambda: play(script)), use)
    assert received == 2
