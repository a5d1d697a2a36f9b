"""The broker's status for people: what is a table there becomes one here, whatever it is called.

The names are the broker's own, so that a newer broker can tell more than this program knows.
"""

from __future__ import annotations

from collections.abc import Iterator

from .outcome import Failure

__all__ = ["lines"]


def lines(status: object) -> Iterator[str]:
    """The lines of a status page; Failure when the broker gave something else."""
    if not isinstance(status, dict):
        raise Failure(f"the broker's status is a {type(status).__name__}, not a map; is it a broker of this release?")
    for name, value in status.items():
        match value:
            case dict():
                yield f"{name}:"
                yield from _columns([[str(key), _cell(item)] for key, item in value.items()])
            case [dict(), *_] if all(isinstance(row, dict) for row in value):
                yield f"{name}: {len(value)}"
                titles = list(value[0])
                yield from _columns([titles, *([_cell(row.get(title)) for title in titles] for row in value)])
            case []:
                yield f"{name}: 0"
            case _:
                yield f"{name}: {_cell(value)}"


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case list():
            return ", ".join(map(str, value)) or "-"
    return str(value)


def _columns(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
