"""Trials until the time is over, at one broker for each transport, with something random done to them all the time.

Kill -9 and replace a publisher, a subscriber or a server; stop one for a while; kill or stop the broker and start it
again. The broker of a transport lives through all its trials, as far as it is not killed; what it then occupies with
nobody connected is shown beside what it did in the beginning.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import final

from .checker import Fault, Summary, summary
from .trial import Member, Post, Trial

__all__ = ["endure"]

# Seconds that a trial lasts, so that what has been written down stays small.
_TRIAL = 20.0
_MEMBERS = 6
# Seconds that a publisher rests on average, every tenth message.
_REST = 0.02
# Seconds between two things that are done, and that somebody is stopped or a broker is away: less than what stalls.
_PAUSES = (0.2, 1.0)
_ABSENCES = (0.05, 1.5)
_DEEDS = ("publisher", "subscriber", "server", "stop", "broker")
_MEBIBYTE = 1 << 20


def endure(transports: Sequence[str], minutes: float, seed: int) -> int:
    """Share the time among the transports, and print what became of each; the exit code: 1 when anything was broken."""
    print(f"endurance: {minutes:g} minutes, seed {seed}; processes are killed, stopped and restarted", flush=True)
    broken = 0
    for number, transport in enumerate(transports):
        faults = _transport(transport, 60 * minutes / len(transports), seed + number)
        broken += len(faults)
        for fault in faults[:1]:
            print(f"{transport}: BROKEN: {fault.kind}: {fault.text}", flush=True)
    print(f"verdict: {broken} promises were broken" if broken else "verdict: every promise was kept")
    return 1 if broken else 0


def _transport(transport: str, seconds: float, seed: int) -> list[Fault]:
    faults: list[Fault] = []
    total = Summary(0, 0, Counter(), 0, 0)
    deeds: Counter[str] = Counter()
    chance = random.Random(seed)
    deadline = time.monotonic() + seconds
    with Post(transport) as post:
        before = post.descriptors(), post.resident()
        while True:
            left = deadline - time.monotonic()
            with Trial(post, chance.randrange(1 << 32), rest=_REST) as trial:
                trial.begin(_MEMBERS, _MEMBERS, 2)
                _Trouble(trial, chance, deeds).make(min(_TRIAL, left))
                history = trial.finish()
                faults += trial.verdict(history, before[0])
            total.add(summary(history))
            if faults or deadline - time.monotonic() < 1:
                break
        after = post.descriptors(), post.resident()
    done = ", ".join(f"{count} {name}" for name, count in sorted(deeds.items())) or "nothing"
    lost = ", ".join(f"{count:,} {policy}" for policy, count in sorted(total.lost.items())) or "none"
    print(
        f"{transport}: published {total.published:,}, taken {total.taken:,}; lost and counted: {lost}; "
        f"in doubt {total.in_doubt:,}, interruptions {total.interruptions:,}\n"
        f"{transport}: killed, stopped or restarted: {done}\n"
        f"{transport}: the broker's memory {before[1] / _MEBIBYTE:.1f} -> {after[1] / _MEBIBYTE:.1f} MiB, descriptors "
        f"{before[0]} -> {after[0]}",
        flush=True,
    )
    return faults


@final
class _Trouble:
    """What is done to the processes of one trial."""

    def __init__(self, trial: Trial, chance: random.Random, deeds: Counter[str]) -> None:
        self._trial = trial
        self._chance = chance
        self._deeds = deeds

    def make(self, seconds: float) -> None:
        """For so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._trial.watch(min(left, self._chance.uniform(*_PAUSES)))
            deed = self._chance.choice(_DEEDS)
            self._deeds[deed] += 1
            match deed:
                case "broker":
                    self._broker()
                case "stop":
                    self._stop(self._chance.choice((self._trial.publishers, self._trial.subscribers)))
                case "publisher":
                    self._replace(self._trial.publishers)
                case "subscriber":
                    self._replace(self._trial.subscribers)
                case _:
                    self._replace(self._trial.servers)
        self._trial.watch(_PAUSES[1])

    def _broker(self) -> None:
        number = self._chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        self._trial.bring_down(number)
        self._trial.watch(self._chance.uniform(*_ABSENCES))
        self._trial.post.start()

    def _stop(self, members: list[Member]) -> None:
        program = self._chance.choice(members).program
        program.signal(signal.SIGSTOP)
        self._trial.watch(self._chance.uniform(*_ABSENCES))
        program.signal(signal.SIGCONT)

    def _replace(self, members: list[Member]) -> None:
        self._trial.replace(members, self._chance.randrange(len(members)))
