"""Requests on their way to services, and replies on their way to who asked.

``CALL`` and ``ANSWER`` stand in front and say which call the next request is, and which request the next reply answers.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, final

from ..errors import PayloadError, ProtocolError, RemoteError, SockbusError
from ..fd import close_fds
from ..message import Message, Peer
from ..payload import decode_payload
from . import body
from .deliveries import message_of
from .frame import Flag
from .inbox import Run
from .mailbox import Called, Service
from .pending import Pending
from .pieces import Assembly

if TYPE_CHECKING:
    from .sender import Sender

__all__ = ["Calls"]

Assemble = Callable[[Assembly, Callable[[Assembly], None]], None]


@final
class Calls:
    """The services and the unanswered requests of one session."""

    def __init__(self, closing: Container[int]) -> None:
        #: composes this session's replies; there once the broker has said WELCOME
        self.sender: Sender
        self.services: dict[int, Service] = {}
        self.requests: dict[int, Pending] = {}
        # Those that were left, and of which something may still be on its way.
        self._closing = closing
        #: services that got something since the runtime last woke their takers
        self.touched: dict[Service, None] = {}
        self._call: tuple[int, int] | None = None
        self._answer: int | None = None

    def on_call(self, run: Run) -> None:
        """A front: the next request is this call, for that service."""
        (service,) = body.integers(run, 1)
        if service not in self.services and service not in self._closing:
            raise ProtocolError(f"server {service} does not exist")
        self._call = (run.correlation, service)

    def on_request(self, run: Run, sender: Peer, assemble: Assemble) -> None:
        """A request for the service in front."""
        if self._call is None:
            raise ProtocolError("a request came without a front that says which call it is")
        (call, number), self._call = self._call, None
        topic = _text(run.topic)
        total, headers, at = run.parts()
        if run.end - at == total:
            self._called(number, call, message_of(run, topic, sender, headers=headers, data=run.buffer[at : run.end]))
            return

        def whole(request: Assembly) -> None:
            data = request.payload()
            self._called(number, call, message_of(run, topic, sender, headers=headers, data=data))

        assemble(Assembly(run, total, headers, at), whole)

    def _called(self, number: int, call: int, request: Message) -> None:
        service = self.services.get(number)
        if service is None:
            request.close()
            return
        service.queue.append((Called(self.sender, call), request))
        self.touched[service] = None

    def on_answer(self, run: Run) -> None:
        """A front: the next reply answers this request."""
        body.nothing(run)
        self._answer = run.correlation

    def on_reply(self, run: Run, sender: Peer, assemble: Assemble) -> None:
        """The reply to the request in front; one to a request that was given up is thrown away."""
        if self._answer is None:
            raise ProtocolError("a reply came without a front that says which request it answers")
        number, self._answer = self._answer, None
        if not run.flags:
            self._answered(number, run, sender, b"", run.body)
            return
        total, headers, at = run.parts()
        if run.end - at == total:
            self._answered(number, run, sender, headers, run.buffer[at : run.end])
            return

        def whole(reply: Assembly) -> None:
            self._answered(number, run, sender, headers, reply.payload())

        assemble(Assembly(run, total, headers, at), whole)

    def _answered(self, number: int, run: Run, sender: Peer, headers: bytes, data: bytes) -> None:
        pending = self.requests.pop(number, None)
        if pending is None:
            close_fds(run.fds)
        elif run.flags & Flag.FAILED:
            close_fds(run.fds)
            pending.fail(RemoteError(*_failure(data)))
        else:
            pending.resolve(message_of(run, pending.topic, sender, headers=headers, data=data))

    def fail(self, error: SockbusError) -> bool:
        """Nothing will be answered any more; whether somebody waited."""
        requests, self.requests = self.requests, {}
        for pending in requests.values():
            pending.fail(error)
        return bool(requests)

    def wake(self) -> None:
        """Wake the takers of what has come."""
        touched, self.touched = self.touched, {}
        for service in touched:
            service.wake()

    def remove(self, service: Service) -> bool:
        """The service was left, what still comes for it is thrown away; whether it was in force here."""
        self.touched.pop(service, None)
        service.close()
        was_here = self.services.get(service.number) is service
        if was_here:
            del self.services[service.number]
        return was_here


def _failure(data: bytes) -> tuple[str, str]:
    try:
        failure: Any = decode_payload(data)
    except PayloadError as error:
        return "Error", f"a failure that cannot be decoded: {error}"
    if isinstance(failure, list) and len(failure) == 2 and all(isinstance(item, str) for item in failure):
        return failure[0], failure[1]
    return "Error", f"a failure that is not [type, text]: {failure!r:.200}"


def _text(topic: bytes) -> str:
    try:
        return topic.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a topic is not UTF-8: {error}") from None
