"""Scenarios of what is handed to other processes, and what is not."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable

from sockbus import Address
from tests.processes.runtimes import plain
from tests.processes.scenario import Place, goes_on, scenario


def refusal(call: Callable[..., object], *arguments: object) -> str:
    try:
        call(*arguments)
    except TypeError as error:
        return str(error)
    return "it raised nothing"


@scenario()
async def neither_pickled_nor_copied(place: Place) -> None:
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        for use in (pickle.dumps, copy.copy, copy.deepcopy):
            assert "pass its address, and connect there" in refusal(use, plain(bus))
            assert "subscribe there" in refusal(use, plain(messages))
        await goes_on(bus, messages, place.topic)
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        # Also once they were left.
        assert "pass its address" in refusal(use, plain(bus))
        assert "subscribe there" in refusal(use, plain(messages))


@scenario(runtimes=("blocking",), transports=("seqpacket",))
async def given_to_a_process_that_is_spawned(place: Place) -> None:
    """The bus is refused, before anything is started; its address, and messages without fds, arrive there."""
    context = multiprocessing.get_context("spawn")
    async with place.connect() as bus, bus.subscribe(place.topic) as messages:
        process = context.Process(target=print, args=(plain(bus),))
        assert "pass its address" in refusal(process.start)
        await bus.publish(place.topic, {"to": "the child"})
        message = await messages.receive()
        process = context.Process(target=answer, args=(Address.parse(bus.address), message))
        process.start()
        back = await messages.receive()
        assert back.payload == [{"to": "the child"}, bus.peer.id]
        assert back.sender.pid == process.pid != os.getpid()
        process.join()
        assert process.exitcode == 0
        await goes_on(bus, messages, place.topic)


def answer(address: Address, message: object) -> None:
    from sockbus import Message
    from sockbus.blocking import connect

    assert isinstance(message, Message)
    with connect(address) as bus:
        bus.publish(message.topic, [message.payload, message.sender.id])
