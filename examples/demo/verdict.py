"""Whether what was collected is what the files hold. Nothing here knows of buses or processes."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .counts import Counts, total


@dataclass(frozen=True, slots=True)
class Worker:
    """Who a worker is."""

    name: str | None
    transport: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker published: ``worker`` as it says itself, ``sender`` as the broker says."""

    job: int
    counts: Counts
    worker: Worker
    sender: Worker


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must be so, and what speaks against it."""

    fact: str
    objections: Sequence[str]


def verdict(expected: Sequence[Counts], results: Sequence[Result], totals: Counts) -> list[Check]:
    """Compare with the counts of the files, in the order of the jobs."""
    times = collections.Counter(result.job for result in results)
    jobs = range(len(expected))
    used = {result.sender.transport for result in results}
    sums = {
        "the files": total(expected),
        "the results": total(result.counts for result in sorted(results, key=lambda result: result.job)),
    }
    return [
        Check(
            f"each of the {len(expected)} files was read exactly once",
            [
                f"file {job} was read {times[job]} times"
                for job in sorted({*jobs, *times})
                if times[job] != (job in jobs)
            ],
        ),
        Check(
            "each count and hash is that of the file itself",
            [
                f"file {result.job} has {expected[result.job]}, and {result.worker.name} says {result.counts}"
                for result in results
                if result.job in jobs and result.counts != expected[result.job]
            ],
        ),
        Check(
            "each result comes from the worker that it names, by the broker's word",
            [f"{result.worker} is {result.sender}" for result in results if result.worker != result.sender],
        ),
        Check(
            "workers on SEQPACKET and workers on STREAM did work",
            [f"nobody on {transport} did any" for transport in ("seqpacket", "stream") if transport not in used],
        ),
        Check(
            "the totals that the publisher serves are those of the files and of the results",
            [
                f"{what} have {found}, and the publisher says {totals}"
                for what, found in sums.items()
                if found != totals
            ],
        ),
    ]


def pronounce(checks: Sequence[Check], say: Callable[[str], None]) -> int:
    """Say each check and how it went; the exit code: 0 when nothing speaks against any, else 1."""
    for check in checks:
        say(f"verdict: {check.fact}: " + ("NO: " + "; ".join(check.objections) if check.objections else "yes"))
    return int(any(check.objections for check in checks))
