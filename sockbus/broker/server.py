"""A broker: its listeners, its links, its end.

``Server.serve`` claims and binds every address or none, then welcomes peers until it is cancelled or told to ``stop``.
A failed accept, a hostile peer, a handler's error: none of them ends the server or costs another peer anything.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import final

import trio

from ..address import Address
from ..errors import ConnectError, LimitExceeded, SockbusError
from ..fd import close_fds
from ..protocol.frame import Kind, control
from ..transport.base import Transport
from ..transport.listener import Listener
from .admission import Porch
from .closing import say_goodbye
from .config import Config, settle_total_fds
from .hub import Hub
from .link import Link
from .lock import Claim
from .stats import Page, Rates, peers, retained, status, subscriptions
from .sweeper import sweep

__all__ = ["Server"]

log = logging.getLogger("sockbus.broker")

# Seconds to wait after an accept that failed for want of descriptors: readiness would show again at once.
ACCEPT_PAUSE = 0.1
# Connections accepted in one turn before others run.
ACCEPTS = 32
_NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


@final
class Server:
    """One broker. ``listening`` is called with each address as given, port 0 as bound, once it accepts."""

    def __init__(self, config: Config, listening: Callable[[str], None] = lambda _: None) -> None:
        self.config = config
        settle_total_fds(config.limits)
        self.hub = Hub(config.limits)
        self.addresses: list[str] = []
        self._listening = listening
        self._claims: list[Claim] = []
        self._listeners: list[tuple[Listener, Porch]] = []
        self._rates = Rates()
        self._stopping = trio.Event()
        self._reserve = -1

    def stop(self) -> None:
        """Say goodbye to every peer, send what is queued, and end."""
        self._stopping.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until ``stop`` or cancelled. Raises ConnectError and its like when an address cannot be served."""
        self.config.check()
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for address in self.config.addresses:
                self._listen(address)
            self._serve_pages()
            self.hub.mortality.open()
            async with trio.open_nursery() as links:
                # As the links do, it goes on until all is delivered.
                links.start_soon(self.hub.coalescing.run, self.hub.settle)
                async with trio.open_nursery() as welcoming:
                    for listener, porch in self._listeners:
                        welcoming.start_soon(self._accept, listener, porch, links)
                    welcoming.start_soon(sweep, self.hub, self._rates)
                    welcoming.start_soon(self.hub.stalls.run, self.hub.settle)
                    welcoming.start_soon(self.hub.watches.run)
                    welcoming.start_soon(self.hub.mortality.watch_over)
                    for text in self.addresses:
                        self._listening(text)
                    task_status.started()
                    await self._stopping.wait()
                    welcoming.cancel_scope.cancel()
                await say_goodbye(self.hub)
                links.cancel_scope.cancel()
        finally:
            self._close()

    # Beginning and end

    def _listen(self, address: Address) -> None:
        shown = str(address)
        roads = address.roads()
        claim: Claim | None = None
        if address.scheme != "tcp":
            claim = Claim(address)
            self._claims.append(claim)
        for road in roads:
            if claim is not None:
                claim.clear(road)
            try:
                listener = Listener(road)
            except OSError as error:
                if address.scheme == "unix" and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                    # A system without SEQPACKET: clients fall back to STREAM.
                    continue
                raise _cannot_listen(address, error) from error
            self._listeners.append((listener, Porch(self.config.limits)))
            self.hub.own_names.add(listener.sock.getsockname())
            if address.scheme == "tcp":
                shown = str(listener.address)
        self.addresses.append(shown)

    def _close(self) -> None:
        for listener, _ in self._listeners:
            listener.close()
        for claim in self._claims:
            claim.release()
        self.hub.retained.close()
        self.hub.mortality.close()
        self.hub.log.close()
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    # Welcoming

    async def _accept(self, listener: Listener, porch: Porch, links: trio.Nursery) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(listener.sock)
                # Only here is it known that somebody waits, for whom others may have to make way.
                await self._wait_for_porch(porch)
                for _ in range(ACCEPTS):
                    if porch.is_full:
                        break
                    try:
                        transport = listener.accept()
                    except OSError as error:
                        await self._accept_failed(listener, error)
                        break
                    if transport is None:
                        break
                    self._welcome(transport, porch, links)
        finally:
            trio.lowlevel.notify_closing(listener.sock)
            listener.close()

    async def _wait_for_porch(self, porch: Porch) -> None:
        """The rest stays in the backlog, until one has said HELLO or those who keep others waiting made way."""
        while porch.is_full:
            link = porch.make_way(trio.current_time())
            if link is not None:
                porch.leave(link)
                link.end(
                    LimitExceeded("no HELLO came while others waited for their turn; send it right after connecting")
                )
            else:
                await porch.changed(0.1)

    def _welcome(self, transport: Transport, porch: Porch, links: trio.Nursery) -> None:
        try:
            link = Link(self.hub, transport, links)
        except (SockbusError, OSError) as error:
            if isinstance(error, SockbusError):
                self.hub.counters.refused += 1
                self.hub.log.say("admission", "a connection was refused: %s", error)
                _refuse(transport, error)
            transport.close()
            return
        porch.enter(link, trio.current_time())
        link.opened = lambda: porch.leave(link)
        links.start_soon(link.run)

    async def _accept_failed(self, listener: Listener, error: OSError) -> None:
        self.hub.log.say("accept", "a connection to %s cannot be accepted: %s", listener.address, error)
        if error.errno in _NO_ROOM and self._reserve >= 0:
            # With the reserve's number one connection can be taken and told why it is refused.
            os.close(self._reserve)
            self._reserve = -1
            try:
                transport = listener.accept()
                if transport is not None:
                    _refuse(
                        transport,
                        LimitExceeded(f"the broker is at its limit of open files ({error.strerror}); try again later"),
                    )
                    transport.sock.close()
            except OSError:
                # Somebody else took the number; the pause below is all that can be done.
                self.hub.counters.refused += 1
        if self._reserve < 0:
            try:
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.hub.log.say("accept", "the reserve descriptor is lost until some are closed")
        await trio.sleep(ACCEPT_PAUSE)

    # Keeping house

    def _serve_pages(self) -> None:
        hub, started = self.hub, trio.current_time()
        pages: dict[str, Callable[[], object]] = {
            "$SYS.status": lambda: status(hub, self._rates, self.addresses, trio.current_time() - started),
            "$SYS.peers": lambda: peers(hub),
            "$SYS.subscriptions": lambda: subscriptions(hub),
            "$SYS.retained": lambda: retained(hub),
        }
        for topic, make in pages.items():
            hub.switchboard.internal[topic] = Page(hub, make)


def _refuse(transport: Transport, error: SockbusError) -> None:
    """One ERROR frame to a connection that does not become a link."""
    frame = control(Kind.ERROR, {"code": error.code, "text": str(error)[:240]})
    try:
        transport.send((frame,))
        transport.sock.shutdown(socket.SHUT_WR)
        came = transport.receive()
        if came is not None:
            close_fds(came[1])
    except (OSError, SockbusError):
        # It has gone already.
        return


def _cannot_listen(address: Address, error: OSError) -> ConnectError:
    reason = error.strerror or str(error)
    remedy = "name another address"
    if error.errno == errno.EADDRINUSE:
        reason = "it is in use, perhaps by another broker"
        remedy = "stop it, or name another port"
    return ConnectError(f"cannot listen on {address}: {reason}; {remedy}")
