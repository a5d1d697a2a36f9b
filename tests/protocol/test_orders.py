"""Numbers of a client's orders: odd, and each used once, whichever thread draws them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sockbus.protocol.orders import Orders
from sockbus.protocol.outbox import Outbox


@pytest.fixture
def often() -> Iterator[None]:
    """Threads change in the middle of whatever they are at."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
def test_numbers_are_odd_and_no_two_threads_get_the_same() -> None:
    orders = Orders(Outbox(records=False), itertools.count(1, 2))
    with ThreadPoolExecutor(8) as pool:
        drawn = pool.map(lambda _: [orders.number() for _ in range(5000)], range(8))
        numbers = [number for each in drawn for number in each]
    assert sorted(numbers) == list(range(1, 2 * 8 * 5000, 2))
