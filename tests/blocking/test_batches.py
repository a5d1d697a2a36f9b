"""Batches across a lost connection."""

from __future__ import annotations

from typing import Any

import pytest

import sockbus.blocking.publishing
import sockbus.blocking.scopes
from sockbus import BusState
from sockbus.blocking import connect
from tests.brokers import PATIENCE, BrokerProcess


def test_order_holds_when_the_connection_comes_back_in_the_middle_of_a_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = sockbus.blocking.scopes.gather

    with (
        BrokerProcess() as broker,
        connect(broker.address("stream")) as bus,
        bus.background(),
        bus.subscribe("t") as messages,
    ):

        def gather_and_come_back(*arguments: Any) -> bool:
            gathered = gather(*arguments)
            if not gathered:
                broker.start()
                while bus.state is not BusState.CONNECTED:
                    bus.state_changed(timeout=PATIENCE)
            return gathered

        monkeypatch.setattr(sockbus.blocking.publishing, "gather", gather_and_come_back)
        with bus.batch():
            bus.publish("t", 1)
            broker.kill()
            while bus.state is BusState.CONNECTED:
                bus.state_changed(timeout=PATIENCE)
            bus.publish("t", 2)
        assert [messages.receive(timeout=PATIENCE).payload for _ in range(2)] == [1, 2]
