"""What is counted in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one file or of many; ``sha256`` of many is that of their digests in order."""

    lines: int
    bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.lines} lines, {self.bytes} bytes, sha256 {self.sha256[:12]}…"


def count(content: bytes) -> Counts:
    """The counts of one file."""
    return Counts(content.count(b"\n"), len(content), hashlib.sha256(content).hexdigest())


def total(counts: Iterable[Counts]) -> Counts:
    """The counts of many files together."""
    lines = size = 0
    digests = hashlib.sha256()
    for each in counts:
        lines += each.lines
        size += each.bytes
        digests.update(each.sha256.encode())
    return Counts(lines, size, digests.hexdigest())
