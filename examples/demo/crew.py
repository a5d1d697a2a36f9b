"""The processes of one demonstration: started here, watched here, and ended here whatever happens.

A process that ends before it was dismissed, or with another exit code than 0, fails the demonstration at once. All of
them are in process groups of their own: Ctrl-C at a terminal reaches the process that leads, which ends the others.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import final

import trio

ROOT = Path(__file__).resolve().parent.parent.parent
# Seconds that a process may take to end when it is told to; one that takes longer is stuck, and is killed.
ENDING = 2.0


@final
class Crew:
    """Processes by role, watched by tasks in ``nursery``; ``fail`` is called with a sentence when one fails.

    ``end`` must be called, whatever happens. What they complain about is kept in files in ``directory``.
    """

    def __init__(self, nursery: trio.Nursery, directory: Path, fail: Callable[[str], None]) -> None:
        self._nursery = nursery
        self._directory = directory
        self._fail = fail
        self._processes: dict[str, trio.Process] = {}
        self._dismissed: set[str] = set()
        self._ending = False

    async def start(self, role: str, module: str, *arguments: str) -> trio.Process:
        """Run a module of this tree, with its standard output in a pipe."""
        with (self._directory / role).open("wb") as complaints:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
            )
        self._processes[role] = process
        self._nursery.start_soon(self._watch, role, process)
        return process

    async def dismiss(self, *roles: str) -> None:
        """Wait until these have ended, which from now on they may."""
        self._dismissed.update(roles)
        for role in roles:
            await self._processes[role].wait()

    async def end(self) -> None:
        """End what still runs; not to be cancelled."""
        self._ending = True
        with trio.CancelScope(shield=True):
            # The broker, which was the first, goes last: none of the others finds it gone.
            for process in reversed(self._processes.values()):
                if process.returncode is None:
                    process.terminate()
                    with trio.move_on_after(ENDING):
                        await process.wait()
                    process.kill()
                    await process.wait()
                if process.stdout is not None:
                    await process.stdout.aclose()

    async def _watch(self, role: str, process: trio.Process) -> None:
        code = await process.wait()
        if self._ending or (code == 0 and role in self._dismissed):
            return
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        said = (self._directory / role).read_text().strip().rpartition("\n")[2] or "it said nothing"
        self._fail(f"the {role} (pid {process.pid}) ended with {how}: {said}")
