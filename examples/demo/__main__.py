"""``python -m examples.demo [FILE ...]``: see the package."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def _say(line: str) -> None:
    print(line, flush=True)


def _main() -> int:
    # As long as nothing is started, Ctrl-C ends this process without a word. That is also why the imports, which
    # take most of that time, are here.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import trio

    from .stage import demonstrate, sources

    code = 1
    try:
        code = trio.run(demonstrate, [Path(name).resolve() for name in sys.argv[1:]] or sources(), _say)
    except* BrokenPipeError:
        # Nobody reads any more, as behind ``| head``; nor may the interpreter try to flush when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(_main())
