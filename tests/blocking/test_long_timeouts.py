"""A timeout may be longer than poll(2) can wait at once."""

from __future__ import annotations

from sockbus.blocking import connect
from tests.brokers import BrokerProcess

YEAR = 365 * 86_400.0


def test_message_comes_within_a_year() -> None:
    with (
        BrokerProcess() as broker,
        connect(broker.unix, timeout=YEAR) as bus,
        bus.subscribe("a", timeout=YEAR) as subscription,
    ):
        bus.publish("a", "x", timeout=YEAR)
        assert subscription.receive(timeout=YEAR).payload == "x"
        assert bus.request("$SYS.status", timeout=1e300).payload
