"""Taking turns: the bus, its reference, the bus again, in the same minutes on the same machine.

Other work on the machine hits neighbouring turns alike, so each round gives a ratio of its own, and medians
are taken of those. A ``Run`` is one turn of so many messages.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from .process import Crew, Program

__all__ = [
    "Comparison",
    "Effort",
    "Run",
    "Sample",
    "asking",
    "compare",
    "compare_samples",
    "quantiles",
    "take_turns",
    "transfer",
]

# Messages of the first turn, which warms up and finds out how many a longer one needs.
FIRST = 256
# Rounds of the same processes, where hundredths count: one may be slower than its twin by some for as long as it lives.
SITTING = 5


@dataclass(frozen=True, slots=True)
class Effort:
    """``rounds`` turns each, of about ``seconds``, or of ``messages`` where that is not 0."""

    rounds: int
    seconds: float
    messages: int

    def sittings(self) -> Iterator[Effort]:
        """The rounds shared out, for new processes every few of them."""
        for first in range(0, self.rounds, SITTING):
            yield replace(self, rounds=min(SITTING, self.rounds - first))


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn: its length, the value that is compared, and others that are shown."""

    seconds: float
    value: float
    others: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over the rounds; ``ratios``: bus / reference, the median, the lowest and the highest."""

    bus: Sample
    reference: Sample
    ratios: tuple[float, float, float]


Run = Callable[[int], Sample]


def compare(bus: Run, reference: Run, effort: Effort) -> Comparison:
    """Let the two take turns."""
    return compare_samples(*take_turns((bus, reference), effort))


def take_turns(sides: Sequence[Run], effort: Effort) -> list[list[Sample]]:
    """Each side's samples, one a round; the first to go changes with the round."""
    counts = [effort.messages or _messages_for(run, effort.seconds) for run in sides]
    samples: list[list[Sample]] = [[] for _ in sides]
    for number in range(effort.rounds):
        for turn in range(len(sides)):
            side = (number + turn) % len(sides)
            samples[side].append(sides[side](counts[side]))
    return samples


def compare_samples(bus: Sequence[Sample], reference: Sequence[Sample]) -> Comparison:
    """What two sides have come to that took turns."""
    ratios = [ours.value / theirs.value for ours, theirs in zip(bus, reference, strict=True)]
    return Comparison(_median(bus), _median(reference), (statistics.median(ratios), min(ratios), max(ratios)))


def transfer(
    crew: Crew, sender: Program, receivers: Sequence[Program], between: Sequence[Program], **order: object
) -> Run:
    """Turns of sending: the value is messages a second, from the first sent to the last received by all.

    The others: microseconds of processor time for each message, of the sender, of each ``between``, of a receiver.
    """

    def run(count: int) -> Sample:
        whole = {**order, "count": count}
        for receiver in receivers:
            receiver.tell(whole)
        crew.answers(*receivers)
        busy = _Busy((sender, *between, *receivers), count)
        sender.tell(whole)
        started, *ended = crew.answers(sender, *receivers)
        spent = busy.microseconds()
        first = len(spent) - len(receivers)
        seconds = max(ended) - started
        return Sample(seconds, count / seconds, (*spent[:first], statistics.mean(spent[first:])))

    return run


def asking(crew: Crew, asker: Program, others: Sequence[Program], **order: object) -> Run:
    """Turns of asking and waiting: the value is the median in microseconds.

    The others: the 99th percentile, and the processor time for each question, of the asker and of each of ``others``.
    """

    def run(count: int) -> Sample:
        busy = _Busy((asker, *others), count)
        started = time.monotonic()
        asker.tell({**order, "count": count})
        ((median, high),) = crew.answers(asker)
        return Sample(time.monotonic() - started, median, (high, *busy.microseconds()))

    return run


def quantiles(nanoseconds: Sequence[int]) -> tuple[float, float]:
    """The median and the 99th percentile, in microseconds."""
    ordered = sorted(nanoseconds)
    return statistics.median(ordered) / 1e3, ordered[(len(ordered) * 99 - 1) // 100] / 1e3


class _Busy:
    """Processor time from now on, for each of so many messages."""

    def __init__(self, programs: Sequence[Program], count: int) -> None:
        self._programs = programs
        self._count = count
        self._before = [program.cpu_seconds() for program in programs]

    def microseconds(self) -> list[float]:
        after = [program.cpu_seconds() for program in self._programs]
        return [(now - then) / self._count * 1e6 for now, then in zip(after, self._before, strict=True)]


def _messages_for(run: Run, seconds: float) -> int:
    count = FIRST
    while (took := run(count).seconds) < seconds / 8:
        count *= 4
    return max(1, round(count * seconds / took))


def _median(samples: Sequence[Sample]) -> Sample:
    return Sample(
        statistics.median(sample.seconds for sample in samples),
        statistics.median(sample.value for sample in samples),
        tuple(statistics.median(column) for column in zip(*(sample.others for sample in samples), strict=True)),
    )
