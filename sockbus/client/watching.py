"""Waiting until somebody listens or serves: what ``Bus.wait_for`` does between its waits."""

from __future__ import annotations

from ..errors import ConnectionLost
from ..topic import check_pattern
from .client import Client
from .need import Expired, Steps

__all__ = ["waited_for"]

_MOST = (1 << 63) - 1


def waited_for(client: Client, pattern: str, subscribers: int | None, servers: int | None) -> Steps[None]:
    """Wait until the broker says that so many are there; ValueError when those are no numbers."""
    if subscribers is None and servers is None:
        subscribers = 1
    for name, count in (("subscribers", subscribers), ("servers", servers)):
        if count is not None and (type(count) is not int or not 0 <= count <= _MOST):
            raise ValueError(f"{name}={count!r:.80} is not a whole number from 0 up")
    raw = check_pattern(pattern)
    try:
        while not (yield from _met(client, raw, subscribers or 0, servers or 0)):
            # The connection was lost; it is for the next one to say.
            yield from client.connected()
    except Expired as expired:
        wanted = ((subscribers, "subscriptions to"), (servers, "servers of"))
        what = " and ".join(f"{count} {of}" for count, of in wanted if count)
        raise TimeoutError(
            f"{what} {pattern!r} were not there within {expired.seconds:g} s; is the program running, and on this bus?"
        ) from None


def _met(client: Client, raw: bytes, subscribers: int, servers: int) -> Steps[bool]:
    session = yield from client.connected()
    number, met = session.watch(raw, subscribers, servers)
    try:
        client.flush()
        yield from client.result(met)
    except ConnectionLost:
        return False
    finally:
        if session.error is None:
            session.orders.unwatch(number)
        client.flush_urgent()
    return True
