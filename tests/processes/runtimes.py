"""The runtimes as programs that fork use them: one coroutine for all, and no thread that nobody asked for.

A blocking bus is put into coroutines that never wait, so that its calls are made in the very process, and the very
thread, that forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import trio

import sockbus.asyncio
import sockbus.blocking
import sockbus.trio

__all__ = ["RUNTIMES", "Runtime", "mailbox", "plain"]

Main = Callable[[], Awaitable[Any]]


class Runtime(Protocol):
    """One way of waiting."""

    name: str
    connect: Callable[..., Any]

    def run(self, main: Main) -> Any:
        """A program of this runtime, from its beginning to its end."""

    async def run_anew(self, main: Main) -> Any:
        """The same inside of one, in a child: as a program of the child's own."""

    def sleeper(self) -> Callable[[float], Awaitable[None]]:
        """What sleeps in the loop that runs now, also in a child that has inherited it."""

    def tasks(self) -> contextlib.AbstractAsyncContextManager[Callable[..., object]]:
        """A block whose tasks are begun with what it gives, and awaited at its end."""

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """Make a call in a thread."""


class Trio:
    name = "trio"
    connect = sockbus.trio.connect

    def run(self, main: Main) -> Any:
        return trio.run(main)

    async def run_anew(self, main: Main) -> Any:
        # Trio runs once in a thread, and this is still inside of the parent's run.
        return await main()

    def sleeper(self) -> Callable[[float], Awaitable[None]]:
        return trio.sleep

    @contextlib.asynccontextmanager
    async def tasks(self) -> AsyncIterator[Callable[..., object]]:
        async with trio.open_nursery() as nursery:
            yield nursery.start_soon

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(call)


class Asyncio:
    name = "asyncio"
    connect = sockbus.asyncio.connect

    def run(self, main: Main) -> Any:
        return asyncio.run(_coroutine(main))

    async def run_anew(self, main: Main) -> Any:
        return self.run(main)

    def sleeper(self) -> Callable[[float], Awaitable[None]]:
        # asyncio.sleep asks for the running loop, and in a child there is none.
        loop = asyncio.get_running_loop()

        async def sleep(seconds: float) -> None:
            slept = loop.create_future()
            loop.call_later(seconds, slept.set_result, None)
            await slept

        return sleep

    @contextlib.asynccontextmanager
    async def tasks(self) -> AsyncIterator[Callable[..., object]]:
        async with asyncio.TaskGroup() as group:
            yield lambda call, *arguments: group.create_task(call(*arguments))

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(call)


class Blocking:
    name = "blocking"

    def connect(self, *arguments: Any, **options: Any) -> _Block:
        return _Block(sockbus.blocking.connect(*arguments, **options), _Bus)

    def run(self, main: Main) -> Any:
        try:
            main().__await__().send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("a program without a loop waited")

    async def run_anew(self, main: Main) -> Any:
        return await main()

    def sleeper(self) -> Callable[[float], Awaitable[None]]:
        return _sleep

    def tasks(self) -> contextlib.AbstractAsyncContextManager[Callable[..., object]]:
        raise NotImplementedError

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        raise NotImplementedError


async def _coroutine(main: Main) -> Any:
    return await main()


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)


class _Wrapped:
    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


class _Block(_Wrapped):
    """A context manager, and what it gives, wrapped."""

    def __init__(self, plain: Any, gives: Callable[[Any], Any]) -> None:
        super().__init__(plain)
        self._gives = gives

    async def __aenter__(self) -> Any:
        return self._gives(self.plain.__enter__())

    async def __aexit__(self, *left: object) -> None:
        self.plain.__exit__(*left)


class _Bus(_Wrapped):
    def __getattr__(self, name: str) -> Any:
        found = getattr(self.plain, name)
        if name in ("publish", "request", "flush", "serve"):
            return functools.partial(_call, found)
        return found

    def subscribe(self, *arguments: Any, **options: Any) -> _Block:
        return _Block(self.plain.subscribe(*arguments, **options), _Subscription)


class _Subscription(_Wrapped):
    async def receive(self) -> Any:
        return self.plain.receive()

    def __aiter__(self) -> _Iterator:
        return _Iterator(iter(self.plain))

    def batches(self) -> _Iterator:
        return _Iterator(iter(self.plain.batches()))


class _Iterator(_Wrapped):
    def __aiter__(self) -> _Iterator:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self.plain)
        except StopIteration:
            raise StopAsyncIteration from None


async def _call(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return call(*arguments, **options)


def plain(wrapped: Any) -> Any:
    """The object of sockbus itself."""
    return wrapped.plain if isinstance(wrapped, _Wrapped) else wrapped


def mailbox(subscription: Any) -> Any:
    """What has come to a subscription and was not taken."""
    return plain(subscription)._taking.mailbox.queue


RUNTIMES: dict[str, Runtime] = {each.name: each for each in (Trio(), Asyncio(), Blocking())}
