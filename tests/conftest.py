"""What every test gets: its fds are counted before and after."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from sockbus.fd import closing_settled
from tests.fd_guard import FdGuard, listing

_unfinished = pytest.StashKey[bool]()


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end, and whoever collects garbage need not go through them."""
    gc.collect()
    gc.freeze()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Notes a test that raised, for `no_leaked_fds`; the report itself is made by pytest."""
    if call.excinfo is not None:
        item.stash[_unfinished] = True


@pytest.fixture(autouse=True)
def no_leaked_fds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves fds open, and names them.

    Autouse fixtures are set up before a test's own and torn down after them, and an async test's `trio.run`
    is over by then; so what a fixture opens and closes again counts as closed. A test that raised is not
    judged: its traceback keeps its locals, and thus their fds, alive.
    """
    guard = FdGuard()
    yield
    if request.node.stash.get(_unfinished, False) or not guard.leaked():
        return
    # A thread that closes them may have had no turn yet, on a machine that is busy.
    closing_settled(30)
    if leaked := guard.leaked():
        pytest.fail(listing(leaked), pytrace=False)
