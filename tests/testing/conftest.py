"""No test of a broker in its own process leaves anything of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.probes import brokers_threads


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where brokers of the test put their directories; nothing is left there, and no thread either.

    ``tmp_path`` comes first, so that pytest does not put its own directory into it.
    """
    with tempfile.TemporaryDirectory(prefix="sockbus-test-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert os.listdir(name) == []
    assert brokers_threads() == []
