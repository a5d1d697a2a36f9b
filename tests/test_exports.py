"""The public names are the contract: adding or losing one is a decision, and this is where it shows."""

from __future__ import annotations

import importlib
import inspect

import pytest

from sockbus import errors

EXPORTS = {
    "sockbus": {
        "Address", "ConnectError", "ConnectionLost", "Fd", "InvalidTopic", "LimitExceeded", "Message",
        "MessageTooLarge", "NoResponders", "PayloadError", "Peer", "PermissionDenied", "ProtocolError", "Receipt",
        "RemoteError", "Reply", "RequestError", "RequestTimeout", "ResponderLost", "SockbusError", "TooManyFds",
    },
    "sockbus.trio": {"Bus", "Subscription", "connect"},
    "sockbus.testing": {"Broker"},
}  # fmt: skip

BUS = {
    "publish": "(self, topic, payload=None, *, fds=(), headers=None, receipt=False)",
    "subscribe": "(self, pattern, *, group=None, fds='reject', capacity=1024, capacity_bytes=4194304)",
    "request": "(self, topic, payload=None, *, fds=(), headers=None, timeout=5.0)",
    "serve": "(self, pattern, handler, *, concurrency=64, task_status=None)",
    "flush": "(self)",
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


@pytest.mark.parametrize("name", BUS)
def test_method_of_the_bus_has_just_this_signature(name: str) -> None:
    from sockbus.trio import Bus

    found = inspect.signature(getattr(Bus, name))
    bare = found.replace(
        parameters=[each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    assert str(bare) == BUS[name]
    assert getattr(Bus, name).__doc__
