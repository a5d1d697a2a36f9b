"""What only asyncio has, its own tests try over every transport."""

from __future__ import annotations

from tests.contract.fixtures import address, broker_as_found, common_broker, topic, transport

__all__ = ["address", "broker_as_found", "common_broker", "topic", "transport"]
