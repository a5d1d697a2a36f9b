"""A subscriber to be stopped: ``python -m tests.broker.counting ADDRESS PATTERN OVERFLOW CAPACITY STALL``.

It takes numbers that rise by one, whatever their topic, holds each gap against ``message.lost``, and ends at "end" or
with the subscription. What it prints is `ready`, then a line of JSON: how many it received, the sum of what the
messages said to be lost before them, ``lost`` of the subscription, the gaps that do not add up, and why it ended.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sockbus import SubscriptionStalled
from sockbus.blocking import connect


def main(address: str, pattern: str, overflow: Any, capacity: str, stall: str) -> None:
    received = gaps = expected = 0
    wrong: list[tuple[int, int, int]] = []
    why = "end"
    with (
        connect(address) as bus,
        bus.subscribe(pattern, overflow=overflow, capacity=int(capacity), stall=float(stall)) as messages,
    ):
        print("ready", flush=True)
        try:
            for message in messages:
                if message.payload == "end":
                    gaps += message.lost
                    break
                if message.payload != expected + message.lost:
                    wrong.append((expected, message.lost, message.payload))
                received += 1
                gaps += message.lost
                expected = message.payload + 1
        except SubscriptionStalled as error:
            why = str(error)
        print(json.dumps([received, gaps, messages.lost, wrong, why]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
