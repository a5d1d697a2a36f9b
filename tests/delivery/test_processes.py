"""Eight publishers and eight subscribers, of all runtimes and policies, while the broker is killed: nothing is silent.

One subscriber is stopped meanwhile, one publisher and one subscriber are killed and replaced. The verdict is the
checker's, on what all of them have written down.
"""

from __future__ import annotations

import signal

import pytest

from benchmarks.endurance.checker import summary
from benchmarks.endurance.trial import Post, Trial


@pytest.mark.parametrize("transport", ["seqpacket", "stream", "tcp"])
def test_all_that_was_sent_came_or_was_counted_or_was_in_doubt(transport: str) -> None:
    with Post(transport) as post:
        descriptors = post.descriptors()
        with Trial(post, seed=1) as trial:
            trial.begin(publishers=8, subscribers=8, servers=1)
            stopped = trial.subscribers[5].program  # a "block" one that takes from all
            trial.watch(0.5)
            stopped.signal(signal.SIGSTOP)
            trial.watch(0.5)
            trial.bring_down()
            trial.watch(0.2)
            post.start()
            trial.replace(trial.publishers, 3)
            trial.replace(trial.subscribers, 1)
            trial.watch(0.5)
            stopped.signal(signal.SIGCONT)
            trial.watch(0.5)
            history = trial.finish()
            assert trial.verdict(history, descriptors) == []
    found = summary(history)
    assert found.taken > found.published > 100
    assert len(history.publishers) >= 8
    assert {each.overflow for each in history.subscriptions.values() if each.end} >= {"block", "drop_oldest", "latest"}
    # The one broker was lost once, and everybody who has seen it knows.
    assert {each.end.interrupted for each in history.subscriptions.values() if each.end} <= {0, 1}
    assert found.interruptions >= 7
