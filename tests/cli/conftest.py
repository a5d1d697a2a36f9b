"""The fixtures of tests/brokers.py and programs.py, by name."""

from __future__ import annotations

from tests.brokers import broker, place
from tests.cli.programs import bus

__all__ = ["broker", "bus", "place"]
