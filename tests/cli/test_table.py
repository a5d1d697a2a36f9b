"""The status page for people."""

from __future__ import annotations

import pytest

from sockbus.cli.outcome import Failure
from sockbus.cli.table import lines


def test_maps_lists_and_values_each_have_a_form() -> None:
    status = {
        "broker": {"pid": 12, "addresses": ["unix:/a", "tcp:b:1"]},
        "peers": [{"id": 1, "name": None}, {"id": 10, "name": "long name", "new": 3}],
        "servers": [],
        "mixed": [{}, 1],
        "answer": 42,
    }
    assert list(lines(status)) == [
        "broker:",
        "  pid        12",
        "  addresses  unix:/a, tcp:b:1",
        "peers: 2",
        "  id  name",
        "  1   -",
        "  10  long name",
        "servers: 0",
        "mixed: {}, 1",
        "answer: 42",
    ]


def test_status_of_another_shape_is_a_failure() -> None:
    with pytest.raises(Failure, match="list"):
        list(lines([1]))
