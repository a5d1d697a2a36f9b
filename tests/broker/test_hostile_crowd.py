"""Fifty misbehaving peers of mixed kinds beside a healthy pair on each transport.

The crowd does a bounded amount of work; the pairs must get on meanwhile, and when the crowd is gone nothing of it may
be left: no descriptor, no queued byte, no fault in the log.
"""

from __future__ import annotations

import threading
from collections import Counter

from tests.broker.crowd import KINDS, Crowd, Stand, is_killed_in_mid_message
from tests.broker.healthy import HealthyPair
from tests.broker.outside import descriptors, eventually, log_lines, status
from tests.broker.raw import PATIENCE
from tests.brokers import BrokerProcess


def test_crowd_harms_nobody_and_leaves_nothing(
    transport: str, common: BrokerProcess, pairs: dict[str, HealthyPair]
) -> None:
    before, over = descriptors(common), threading.Event()
    address = common.address(transport)

    def stand(act: Crowd, number: int) -> None:
        place = Stand(address, number, over)
        try:
            act(place)
        except (OSError, AssertionError):
            # Sent away in the middle of something, or not let in: what becomes of the crowd is nobody's business here.
            return
        finally:
            for peer in place.open:
                peer.close()

    kinds = [*KINDS * 5, *[is_killed_in_mid_message] * 5]
    threads = [threading.Thread(target=stand, args=(act, number)) for number, act in enumerate(kinds)]
    assert len(threads) == 50
    for thread in threads:
        thread.start()
    for _ in range(10):
        for pair in pairs.values():
            pair.proceed()
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    for pair in pairs.values():
        pair.proceed()
    # What a test before this one left may have been closed meanwhile.
    eventually(lambda: not Counter(descriptors(common)) - Counter(before))
    eventually(lambda: status(common)["fds"]["held"] <= 1)
    eventually(lambda: status(common)["queues"]["bytes"] < 10_000)
    page = status(common)
    assert {peer["name"] for peer in page["peers"]} == {"healthy publisher", "healthy subscriber", None}
    assert len(page["subscriptions"]) == len(page["servers"]) == 3
    # On a slow machine some of those who never read have been without credit for 5 s.
    expected = ("was sent away", "held back", "gave no credit back")
    assert not [line for line in log_lines(common) if not any(part in line for part in expected)]
