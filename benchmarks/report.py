"""The table: one line a comparison, printed as soon as it is known.

Plain ASCII in fixed columns, so that it can be read as it grows, compared with ``diff`` and pasted anywhere.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from .rounds import Comparison, Effort

__all__ = ["Floor", "Table"]

# What is shown of the bus beside its value: at most so wide.
_OTHER_WIDTH = 10


@dataclass(frozen=True, slots=True)
class Floor:
    """What the ratio must reach, or where ``at_most`` must not exceed."""

    ratio: float
    at_most: bool = False

    def met(self, ratio: float) -> bool:
        """Whether it is."""
        return ratio <= self.ratio if self.at_most else ratio >= self.ratio

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.ratio:.2f}"


@final
class Table:
    """``value`` and ``others`` name what the comparisons hold; ``about`` says in a line what is compared with what."""

    def __init__(self, about: str, value: str, others: Sequence[str], effort: Effort) -> None:
        turn = f"{effort.messages} messages" if effort.messages else f"about {effort.seconds:g} s"
        rounds = f"{effort.rounds} round{'s' if effort.rounds > 1 else ''}"
        print(about)
        print(
            f"medians of {rounds}, {turn} a turn; Python {platform.python_version()}, "
            f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs"
        )
        print()
        heads = (f"{name:>{_OTHER_WIDTH}}" for name in others)
        self._line("transport", "case", "runtime", value, "reference", "ratio", "(low-high)", "floor", "met", *heads)

    def row(self, transport: str, case: str, runtime: str, found: Comparison, floor: Floor | None = None) -> None:
        """Print one comparison: of which runtime's bus. Without a floor it is for information."""
        ratio, low, high = found.ratios
        self._line(
            transport,
            case,
            runtime,
            _number(found.bus.value),
            _number(found.reference.value),
            f"{ratio:.2f}",
            f"({low:.2f}-{high:.2f})",
            str(floor or "-"),
            "-" if floor is None else "yes" if floor.met(ratio) else "NO",
            *(f"{other:{_OTHER_WIDTH}.2f}" for other in found.bus.others),
        )

    def _line(
        self,
        transport: str,
        case: str,
        runtime: str,
        value: str,
        reference: str,
        ratio: str,
        spread: str,
        floor: str,
        met: str,
        *others: str,
    ) -> None:
        names = f"{transport:<10}{case:<16}{runtime:<9}"
        ratios = f"{ratio:>7} {spread:<13}{floor:<8}{met:<4}"
        print(f"{names}{value:>12}{reference:>12}{ratios}{''.join(others)}".rstrip(), flush=True)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
