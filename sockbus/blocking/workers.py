"""Running the handler of one service, in the thread that serves and, where it takes long, in others beside it.

Whoever has taken a call runs it, so that a request costs no change of thread; another worker waits meanwhile, and is
started when there is none. All end with ``serve``.
"""

from __future__ import annotations

import inspect
import threading
from time import monotonic
from typing import Any, final

from ..client.answering import Answering, Handler, TaskStatus, check_served, new_service, tell_started
from ..client.need import Expired
from ..interrupt import deliver, interruptible
from ..message import Message
from ..protocol.mailbox import Called, Service
from .waits import Waits

__all__ = ["Workers"]


@final
class Workers:
    """Up to ``concurrency`` threads at one handler, the first being the caller's."""

    def __init__(self, waits: Waits, handler: Handler) -> None:
        if inspect.iscoroutinefunction(handler):
            raise TypeError(f"the handler {handler!r:.80} is async; serve it with sockbus.asyncio or sockbus.trio")
        self._waits = waits
        self._handler = handler
        self._answering: Answering
        self._threads: list[threading.Thread] = []
        self._fault: BaseException | None = None

    def serve(self, pattern: str, concurrency: int, task_status: TaskStatus | None, timeout: float | None) -> None:
        """Until stopped, the time is over, or the session has ended; ConnectionLost when the broker ended it."""
        waits = self._waits
        deadline = None if timeout is None else monotonic() + timeout
        try:
            service = new_service(pattern, concurrency)
            with waits:
                waits.drive(waits.put_in_force(service), timeout)
        except Expired as expired:
            raise TimeoutError(
                f"the broker did not answer to serving {pattern!r} within {expired.seconds:g} s; is it stopped?"
            ) from None
        try:
            self._answering = Answering(waits, service, self._handler)
            service.wake = self._wake
            _tell(task_status)
            self._work(service, deadline)
        finally:
            self.stop()
            try:
                self._join()
            finally:
                with waits:
                    waits.leave(service)
        if self._fault is not None:
            raise self._fault
        check_served(service)
        if not waits.was_left:
            waits.check()

    def stop(self) -> None:
        """Take no more calls; handlers that are at work finish."""
        with self._waits:
            self._answering.stop()

    @interruptible
    def _join(self) -> None:
        deliver()
        for thread in self._threads:
            thread.join()

    def _wake(self) -> None:
        idle, service = self._answering.idle, self._answering.service
        is_over = self._waits.error is not None or service.error is not None
        idle.open(len(idle.waiting) if is_over else len(service.queue))

    def _work(self, service: Service, deadline: float | None) -> None:
        waits, answering = self._waits, self._answering
        while True:
            with waits:
                try:
                    taken = waits.drive(answering.next(), None if deadline is None else deadline - monotonic())
                except Expired:
                    return
                if taken is None:
                    return
                if not answering.idle.waiting and len(self._threads) + 1 < service.concurrency:
                    self._start(service)
            call, request = taken
            with request:
                reply = self._call(call, request)
                with waits:
                    waits.drive(answering.answer(call, reply))

    @interruptible
    def _call(self, call: Called, request: Message) -> Any:
        deliver()
        reply = self._answering.call(call, request)
        if inspect.isawaitable(reply):
            if inspect.iscoroutine(reply):
                reply.close()
            return self._answering.failure(call, TypeError("the handler returned an awaitable, and nobody awaits here"))
        return reply

    def _start(self, service: Service) -> None:
        thread = threading.Thread(target=self._help, args=(service,), name="sockbus-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The system gives no more threads: those that are there go on.
            import logging  # here, for the command line, which starts faster without it

            logging.getLogger("sockbus.blocking").warning(
                "a handler on %r gets no thread of its own: %s", service.pattern, error
            )
        else:
            self._threads.append(thread)

    def _help(self, service: Service) -> None:
        try:
            self._work(service, None)
        except BaseException as fault:  # noqa: BLE001  # it is not this thread's: serve raises it
            self._fault = self._fault or fault
            self.stop()


@interruptible
def _tell(task_status: TaskStatus | None) -> None:
    tell_started(task_status)
