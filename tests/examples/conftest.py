"""The fixture ``place`` of tests/brokers.py, by name.

A broker for the examples is ``sockbus_broker``, or ``sockbus_address`` alone. The demonstration starts one of its own,
as a process, which its tests kill.
"""

from __future__ import annotations

from tests.brokers import place

__all__ = ["place"]
