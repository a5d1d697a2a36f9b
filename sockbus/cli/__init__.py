"""The command line: ``main``.

Errors end here: each becomes one sentence on one line of stderr and an exit code (``outcome``); a traceback is a bug
of ours. A verb's module is imported when the verb is known: a broker loads no client, ``--help`` and usage errors load
neither, and only a broker loads Trio, which takes longer than all the rest.
"""

from __future__ import annotations

import gc
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence

from ..errors import SockbusError
from .outcome import FAILED, Ended, Failure, Interrupted, ReaderGone
from .output import complain, open_standard_fds
from .parser import parse_arguments

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Without ``argv`` it is that of this process, which is to end then."""
    if argv is not None:
        return _run(argv)
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:
        # While it complained, and nobody read that.
        code = Interrupted().exit_code
    # What there was to do is done, and the interpreter takes a while to end: no signal must spoil the exit code.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Nor is it the time to look for garbage in all that was loaded: that takes a tenth of `sockbus pub`.
    gc.freeze()
    return code


def _run(argv: Sequence[str]) -> int:
    verb = ""
    try:
        open_standard_fds()
        arguments = parse_arguments(argv)
        verb = arguments.verb
        _perform(arguments)
    except SystemExit as ended:
        # --help and --version.
        return int(ended.code or 0)
    except Failure as error:
        complain(str(error))
        return error.exit_code
    except (ReaderGone, Interrupted, Ended) as error:
        return error.exit_code
    except KeyboardInterrupt:
        # While starting: later on signals are Interrupted, or for a broker a reason to stop.
        return 0 if verb == "broker" else Interrupted().exit_code
    except SockbusError as error:
        complain(str(error))
        return FAILED
    except OSError as error:
        name = f" ({error.filename})" if error.filename is not None else ""
        complain(f"the system refused: {error.strerror or error}{name}")
        return FAILED
    return 0


def _perform(arguments: Namespace) -> None:
    # Here, not at the top: see the module's docstring.
    if arguments.verb == "broker":
        from .broker import broker

        broker(arguments)
    elif arguments.verb == "reply":
        from .reply import reply

        reply(arguments)
    elif arguments.verb == "run":
        from .run import run

        run(arguments)
    elif arguments.verb == "status":
        from .status import status

        status(arguments)
    elif arguments.verb == "sub":
        from .sub import sub

        sub(arguments)
    else:
        from . import client

        getattr(client, arguments.verb)(arguments)
