"""The bus of another event loop than the one that runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
import trio

import sockbus.asyncio
import sockbus.trio


@pytest.mark.parametrize(
    ("run", "package", "instead"),
    [(trio.run, sockbus.asyncio, "sockbus.trio"), (lambda main: asyncio.run(main()), sockbus.trio, "sockbus.asyncio")],
    ids=["asyncio's under trio", "trio's under asyncio"],
)
def test_bus_of_another_event_loop_says_which_one_to_take(
    run: Callable[[Callable[[], Any]], None], package: Any, instead: str
) -> None:
    async def main() -> None:
        async with package.connect("unix:/nowhere"):
            raise AssertionError("it has connected")

    told = f"^{re.escape(package.__name__)} cannot connect where its event loop does not run .* take .*{instead} under"
    with pytest.raises(RuntimeError, match=told):
        run(main)
