"""Publishes one message and prints its receipt: how many subscriptions matched, and how many have it.

    python examples/publish.py TOPIC TEXT [ADDRESS]

A topic is words joined by dots, such as sensors.kitchen.temp; ADDRESS as for examples/uppercase_server.py.
"""

from __future__ import annotations

import argparse
import sys

import trio

import sockbus
from sockbus.trio import connect


async def publish(topic: str, text: str, address: str | None) -> None:
    async with connect(address, name="publisher") as bus:
        # Without receipt=True it would not wait for the broker; leaving the block then does.
        print(await bus.publish(topic, text, receipt=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publish one message.")
    parser.add_argument("topic")
    parser.add_argument("text")
    parser.add_argument("address", nargs="?")
    arguments = parser.parse_args()
    try:
        trio.run(publish, arguments.topic, arguments.text, arguments.address)
    except sockbus.SockbusError as error:
        sys.exit(f"publish: {error}")
