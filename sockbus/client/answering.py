"""Running the handler of one service, and sending what it returns.

Whatever a handler raises is the requester's to know, and serving goes on. A plain handler blocks everybody else whoever
runs it, so an event loop's reader runs it, in the context of ``serve``: a request costs no scheduler pass
(``python -m benchmarks latency``). What it raises that is no Exception, such as Ctrl-C, comes out of ``serve``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, final

from ..errors import PermissionDenied, SockbusError
from ..message import Message, Reply
from ..protocol.mailbox import Called, Service
from ..protocol.sender import Outgoing
from ..topic import check_pattern, is_reserved
from .client import Client
from .need import Gate, Steps

__all__ = ["Answering", "Handler", "TaskStatus", "check_served", "new_service", "tell_started"]

Handler = Callable[[Message], Any]


class _Started(Protocol):
    def started(self, value: None = None, /) -> None: ...


class _Event(Protocol):
    def set(self) -> object: ...


TaskStatus = _Started | _Event


def tell_started(task_status: TaskStatus | None) -> None:
    """Tell whoever waits for it that a server is in force."""
    if task_status is None:
        return
    started = getattr(task_status, "started", None) or getattr(task_status, "set", None)
    if started is None:
        raise TypeError(f"task_status={task_status!r:.80} has neither started() nor set(); give an Event")
    started()


def new_service(pattern: str, concurrency: int) -> Service:
    """A service that is not in force yet. InvalidTopic, PermissionDenied, ValueError."""
    check_pattern(pattern)
    if type(concurrency) is not int or concurrency < 1:
        raise ValueError(f"concurrency={concurrency!r:.80} is not a whole number from 1 up")
    if is_reserved(pattern):
        raise PermissionDenied(f"pattern {pattern!r} begins with $ and belongs to the broker; serve another name")
    return Service(pattern, concurrency)


def check_served(service: Service) -> None:
    """Raise why a service could not be put in force again, if it could not."""
    if service.error is not None:
        raise service.error


@final
class Answering:
    """One handler at one service."""

    def __init__(self, client: Client, service: Service, handler: Handler) -> None:
        self.service = service
        self.is_plain = not inspect.iscoroutinefunction(handler)
        #: where workers wait for calls
        self.idle = Gate()
        self._client = client
        self._handler = handler
        self._stopped = False

    # What a worker does

    def next(self) -> Steps[tuple[Called, Message] | None]:
        """Wait for a call: its number, and the request. None when the session has ended, or this was stopped."""
        queue = self.service.queue
        while not queue or self._stopped:
            if self._stopped or self._client.error is not None or self.service.error is not None:
                return None
            yield self.idle
        return queue.popleft()

    def call(self, call: Called, request: Message) -> Any:
        """Run the handler: its reply, ready to send, or what is still to be awaited. None: nobody waits any more."""
        try:
            reply = self._handler(request)
            return reply if inspect.isawaitable(reply) else self._compose(call, reply)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the requester's to know, and serving goes on
            return self.failure(call, error)

    async def settle(self, call: Called, awaitable: Awaitable[Any]) -> Outgoing | None:
        """Await what an async handler is at; its reply, ready to send."""
        try:
            return self._compose(call, await awaitable)
        except Exception as error:  # noqa: BLE001  # as above
            return self.failure(call, error)

    def answer(self, call: Called, reply: Outgoing | None) -> Steps[None]:
        """Send a reply when there is room."""
        try:
            if reply is not None:
                yield from self._client.send(reply)
        except SockbusError as error:
            # The bus has ended, and ``serve`` says so; or the reply's fds could not be duplicated.
            if self._client.error is None:
                yield from self.answer(call, self.failure(call, error))

    def failure(self, call: Called, error: BaseException) -> Outgoing | None:
        """The reply that says what was raised; None when nobody is there to read it."""
        return None if self._client.error is not None else call.sender.failure(call.number, error)

    def _compose(self, call: Called, reply: Any) -> Outgoing:
        if not isinstance(reply, Reply):
            reply = Reply(reply)
        return call.sender.reply(call.number, reply.payload, reply.fds, reply.headers)

    def stop(self) -> None:
        """Let no worker take another call."""
        self._stopped = True
        self.idle.open_all()

    # What a reader does

    def run_plain(
        self, run: Callable[[Called, Message], Any], later: Callable[[Called, Message, Any], None]
    ) -> BaseException | None:
        """Run a plain handler for all calls that are there; ``run`` is ``call`` in a context of the runtime's choice.

        What cannot be done at once goes to ``later``: an awaitable that a plain handler returned, a reply without room.
        Returns what it raised that is no Exception.
        """
        queue = self.service.queue
        while queue:
            call, request = queue.popleft()
            try:
                reply = run(call, request)
            except BaseException as fault:  # noqa: BLE001  # it is not the reader's: serve raises it
                request.close()
                return fault
            if isinstance(reply, Outgoing) and self._sent(reply):
                request.close()
            else:
                later(call, request, reply)
        return None

    def _sent(self, reply: Outgoing) -> bool:
        """Queue a reply, to leave when the reader has done its turn; False when that has to wait or fails."""
        session = self._client.session
        try:
            # The session may have ended while the handler was at it, and there may even be another one.
            sent = reply.sender is session.sender and session.send(reply)
        except SockbusError:
            return False
        session.orders.urgent = True
        return sent
