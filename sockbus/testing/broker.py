"""A broker inside the process of a test, on real sockets.

``Broker`` runs the same ``Server`` as ``sockbus broker`` does, in a thread with a Trio run of its own, so that any
program can hold one: a plain one, or one inside an event loop of whatever kind. (Trio's guest mode needs a loop to be a
guest in, and a test that blocks this loop would block the broker.) It leaves alone what is the program's: signal
handlers, the configuration of logging, the environment, the limit of open files.

Invariant: what was left leaves nothing behind, be it by an error: no thread, no descriptor, no file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self, final

import trio

from ..address import MAX_PATH_BYTES, Address
from ..broker.config import Config, Limits
from ..broker.server import Server
from ..fd import closing_settled

__all__ = ["Broker"]

_PREFIX = "sockbus-"
# For what tempfile puts behind the prefix, and the longest name of a socket.
_MAX_BASE_BYTES = MAX_PATH_BYTES - len(f"/{_PREFIX}abcdefgh/seqpacket")
# Seconds to wait for threads that close descriptors. Only a socket of the test's own that lingers takes so long.
_CLOSING = 1.0


@final
class Broker:
    """A broker of one's own, as a context manager: ``with Broker() as broker: connect(broker.address)``.

    ``limits`` are those of ``sockbus broker --limit``, by name; SockbusError when there is no such limit or the value
    is out of its range. Without ``tcp`` it opens no TCP port.

    Entering returns once all addresses accept, and raises what keeps the broker from starting: ConnectError, or
    OSError when the system has no room for it. Leaving is ``stop``. Both block, for some milliseconds as a rule, and
    await nothing, so that nothing cancels them; inside an event loop they may be used all the same, for the broker does
    not depend on it. A Broker is entered once.
    """

    #: By scheme: "unix", "seqpacket", "stream", and "tcp" on a port of 127.0.0.1. Empty until it was entered; after
    #: it was left, these are addresses where nobody is.
    addresses: Mapping[str, str]

    def __init__(self, *, limits: Mapping[str, int] | None = None, tcp: bool = True) -> None:
        self.addresses = {}
        self._limits = Limits(**(limits or {}))
        self._tcp = tcp
        self._thread: threading.Thread | None = None
        self._begun = threading.Event()  # it accepts, or it ended
        self._stopping = False
        self._tell_to_stop: Callable[[], None] | None = None
        self._failure: BaseException | None = None

    @property
    def address(self) -> str:
        """``unix:DIR`` in a temporary directory: what programs are given as $SOCKBUS_ADDRESS."""
        if not self.addresses:
            raise RuntimeError("a Broker has addresses once it was entered: `with Broker() as broker`")
        return self.addresses["unix"]

    def stop(self) -> None:
        """End the broker before its block does; again is no error. May be called in any thread.

        Its clients are told, get what is queued for them, and have ConnectionLost. Blocks until that is done and
        nothing of the broker is left: 5 s at most for clients that do not read, and a client whose event loop this
        call blocks does not. Raises, once, what ended the broker if that was an error of its own.
        """
        if self._thread is None:
            return
        self._stopping = True
        if self._tell_to_stop is not None:
            self._tell_to_stop()
        if self._thread.is_alive():  # one that is interrupted in its first steps ends by itself
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("a Broker is entered once; make another one")
        # A daemon: a Broker that nobody leaves must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="sockbus-broker", daemon=True)
        try:
            self._thread.start()
            self._begun.wait()
        except BaseException:  # Ctrl-C, or no room for a thread
            self.stop()
            raise
        if self._failure is not None:
            self.stop()  # raises it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Broker {self.addresses.get('unix', 'not entered')}>"

    # In the thread

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as failure:  # noqa: BLE001  # whoever enters or leaves gets it
            self._failure = failure
        finally:
            # Until then a listener may still take connections, which nobody will welcome.
            closing_settled(_CLOSING)
            self._begun.set()

    async def _serve(self) -> None:
        with _directory() as path:
            addresses = [Address.parse(f"unix:{path}")]
            if self._tcp:
                addresses.append(Address.parse("tcp:127.0.0.1:0"))
            server = Server(Config(addresses, self._limits))
            token = trio.lowlevel.current_trio_token()

            def tell_to_stop() -> None:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(server.stop)

            self._tell_to_stop = tell_to_stop
            if self._stopping:
                # Asked before there was a way to ask.
                server.stop()
            await server.serve(task_status=_Accepting(lambda: self._accepts(server)))

    def _accepts(self, server: Server) -> None:
        found = [Address.parse(text) for text in server.addresses]
        self.addresses = {road.scheme: str(road) for each in found for road in (each, *each.roads())}
        self._begun.set()


@final
class _Accepting:
    """What ``Server.serve`` tells when all its addresses accept."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def started(self, _: None = None) -> None:
        self._tell()


@contextlib.contextmanager
def _directory() -> Iterator[str]:
    """A new directory whose name is short enough for sockets: in the temporary one, else in /tmp."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _MAX_BASE_BYTES:
        base = "/tmp"
    path = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
    try:
        yield path
    finally:
        # The broker has removed it, unless it did not start or somebody else put files into it. `TemporaryDirectory`
        # would also remove it in a forked child that ends, while the parent's broker serves it.
        try:
            os.rmdir(path)  # needs no descriptor, where their lack is why it did not start
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
