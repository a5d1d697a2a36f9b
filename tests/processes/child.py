"""A child that is forked in the middle of a coroutine, and what it reports."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from sockbus import ConnectionLost

__all__ = ["Child", "complaint", "in_child"]

# Seconds until a child that does not report is taken to hang.
PATIENCE = 8.0


class Child:
    """A forked child. The constructor returns twice, as fork(2) does."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        self.parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            os.close(self._writes)
        else:
            os.close(self._reads)
            # To be asked where it hangs.
            faulthandler.register(signal.SIGALRM, chain=True)

    def say(self, report: Any) -> None:
        """In the child: what ``report`` gives in the parent."""
        os.write(self._writes, json.dumps(report).encode())
        os.close(self._writes)

    def end_silently(self) -> None:
        """In the child: the parent hears nothing more."""
        os.close(self._writes)

    def report(self) -> Any:
        """In the parent: what the child said, once it has; None when it ends without a word."""
        heard = b""
        while more := self._read():
            heard += more
        os.close(self._reads)
        return json.loads(heard) if heard else None

    def _read(self) -> bytes:
        if not select.select([self._reads], [], [], PATIENCE)[0]:
            os.kill(self.pid, signal.SIGALRM)
            raise AssertionError(f"the child hangs in {self.wait()}")
        return os.read(self._reads, 1 << 16)

    def wait(self) -> int:
        """In the parent: the child's exit code, once it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self) -> Any:
        """In the parent: what the child said, when it has ended well."""
        report = self.report()
        assert self.wait() == 0, report
        return report


async def in_child(work: Callable[[], Awaitable[Any]]) -> Child:
    """Fork; the child does its work, says what that gives, and ends at once. In the parent: the child."""
    child = Child()
    if child.pid:
        return child
    try:
        child.say(await work())
    except BaseException:  # noqa: BLE001  # whatever it is, the scenario fails by it
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)
    os._exit(0)


async def complaint(call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> str:
    """What the ConnectionLost of a call says."""
    try:
        await call(*arguments, **options)
    except ConnectionLost as error:
        return str(error)
    except BaseException as error:  # noqa: BLE001  # it is not clear enough
        traceback.print_exc()
        return repr(error)
    return "it raised nothing"
