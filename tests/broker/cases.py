"""The table of bad input: what a peer sends, and the code of the ERROR that it is sent away with."""

from __future__ import annotations

from tests.broker import cases_of_frames, cases_of_messages, cases_of_orders

__all__ = ["CASES"]

CASES = [*cases_of_frames.CASES, *cases_of_messages.CASES, *cases_of_orders.CASES]
