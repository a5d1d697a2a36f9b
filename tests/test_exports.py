"""The public names are the contract: adding or losing one is a decision, and this is where it shows."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sockbus import errors

EXPORTS = {
    "sockbus": {
        "Address", "BrokerClosing", "BusState", "ConnectError", "ConnectionLost", "Fd", "InvalidTopic",
        "LimitExceeded", "Message", "MessageTooLarge", "NoResponders", "PayloadError", "Peer", "PermissionDenied",
        "ProtocolError", "Receipt", "RemoteError", "Reply", "RequestError", "RequestTimeout", "ResponderLost",
        "SockbusError", "SubscriptionStalled", "TooManyFds", "Will",
    },
    "sockbus.asyncio": {"Bus", "Subscription", "connect"},
    "sockbus.blocking": {"Bus", "Subscription", "connect"},
    "sockbus.trio": {"Bus", "Subscription", "connect"},
    "sockbus.testing": {"Broker"},
}  # fmt: skip

BUS = {
    "publish": "(self, topic, payload=None, *, fds=(), headers=None, receipt=False, retain=False)",
    "subscribe": (
        "(self, pattern, *, group=None, fds='reject', capacity=1024, capacity_bytes=4194304, overflow='block', "
        "stall=None)"
    ),
    "request": "(self, topic, payload=None, *, fds=(), headers=None, timeout=5.0)",
    "serve": "(self, pattern, handler, *, concurrency=64, task_status=None)",
    "flush": "(self)",
    "drain": "(self)",
    "state_changed": "(self)",
    "wait_for": "(self, pattern, *, subscribers=None, servers=None, timeout=None)",
}


@pytest.mark.parametrize("module", EXPORTS)
def test_module_exports_just_these_names(module: str) -> None:
    loaded = importlib.import_module(module)
    assert set(loaded.__all__) == EXPORTS[module]
    assert all(getattr(loaded, name).__doc__ for name in loaded.__all__)


def test_every_public_error_is_exported() -> None:
    assert {*errors.__all__} == {name for name in EXPORTS["sockbus"] if issubclass_of_error(name)}


def issubclass_of_error(name: str) -> bool:
    value = getattr(errors, name, None)
    return inspect.isclass(value) and issubclass(value, errors.SockbusError)


RUNTIMES = ("trio", "asyncio", "blocking")
# What a blocking bus has that no other needs.
ONLY_BLOCKING = {"Bus": {"background", "batch"}}


def signature(function: Callable[..., Any]) -> inspect.Signature:
    """Names, kinds and defaults of its parameters."""
    found = inspect.signature(function)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()]
    return found.replace(parameters=bare, return_annotation=inspect.Signature.empty)


def public(value: type) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


@pytest.mark.parametrize("runtime", ["trio", "asyncio"])
@pytest.mark.parametrize("name", BUS)
def test_method_of_the_bus_has_just_this_signature(name: str, runtime: str) -> None:
    method = getattr(importlib.import_module(f"sockbus.{runtime}").Bus, name)
    assert str(signature(method)) == BUS[name]
    assert method.__doc__


@pytest.mark.parametrize("name", ["Bus", "Subscription", "connect"])
def test_runtimes_offer_the_same_name_for_name(name: str) -> None:
    trio, asyncio, blocking = (getattr(importlib.import_module(f"sockbus.{runtime}"), name) for runtime in RUNTIMES)
    assert public(trio) == public(asyncio) == public(blocking) - ONLY_BLOCKING.get(name, set())
    assert ONLY_BLOCKING.get(name, set()) <= public(blocking)


def calls(name: str) -> list[str]:
    """What is called on an object of this name, making it included."""
    value = getattr(importlib.import_module("sockbus.trio"), name)
    named = {each for each in public(value) if callable(getattr(value, each))}
    return sorted({*named, "__init__"} if name == "connect" else named)


CALLS = [(name, call) for name in ("Bus", "Subscription", "connect") for call in calls(name)]


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_runtimes_take_the_same_arguments_and_a_blocking_one_a_timeout_besides(name: str, call: str) -> None:
    trio, asyncio, blocking = (
        signature(getattr(getattr(importlib.import_module(f"sockbus.{runtime}"), name), call)) for runtime in RUNTIMES
    )
    assert trio == asyncio
    assert "timeout" in blocking.parameters
    if "timeout" not in trio.parameters:
        kept = [each for each in blocking.parameters.values() if each.name != "timeout"]
        blocking = blocking.replace(parameters=kept)
    assert blocking == trio


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_shell_of_a_runtime_is_thin(runtime: str) -> None:
    directory = Path(importlib.import_module(f"sockbus.{runtime}").__file__ or "").parent
    lines = {path.name: len(path.read_text().splitlines()) for path in directory.glob("*.py")}
    assert {name: count for name, count in lines.items() if count > 300} == {}
