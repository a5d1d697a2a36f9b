"""The fixtures of tests/brokers.py, by name."""

from __future__ import annotations

from tests.brokers import broker, place

__all__ = ["broker", "place"]
