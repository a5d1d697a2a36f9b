"""Directories whose names are short enough for sockets: pytest's own are too long (unix(7): 107 bytes)."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["short_directory"]


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A new directory, removed with all that is in it."""
    with tempfile.TemporaryDirectory(prefix="sockbus-") as name:
        yield Path(name)
