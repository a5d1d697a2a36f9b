"""Runs scenarios, each in a process of its own: ``python -m tests.processes.zygote``.

A process with everything imported, no bus and no thread, which forks once for each scenario that it reads from its
standard input, a line of JSON: [scenario, runtime, address, topic]. It answers with [exit code, what was printed].
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import tempfile
import warnings
from typing import Any

from tests.processes.scenarios import SCENARIOS, Place

# Seconds that a scenario may take; far more than one needs.
SECONDS = 20


def run(name: str, *place: str) -> None:
    """Run a scenario in this process, with an alarm that shows where it hangs."""
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(SECONDS)
    SCENARIOS[name].run(Place(*place))


def _become(output: Any) -> None:
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()


def main() -> None:
    # Python 3.12 and later; in some scenarios there are other threads on purpose, and asyncio looks names up in one.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    while line := sys.stdin.readline():
        with tempfile.TemporaryFile() as output:
            pid = os.fork()
            if not pid:
                _become(output)
                # Its end is the interpreter's usual one, finalizers and all.
                run(*json.loads(line))
                return
            _, status = os.waitpid(pid, 0)
            output.seek(0)
            print(json.dumps([os.waitstatus_to_exitcode(status), output.read().decode()]), flush=True)


if __name__ == "__main__":
    main()
