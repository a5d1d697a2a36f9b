"""A Ctrl-C that comes just before a call sleeps does not wait until that has slept."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from pathlib import Path

import pytest

from sockbus.blocking import connect
from tests.brokers import PATIENCE, BrokerProcess


def interrupt_at_next_look_at_the_clock(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which those who sleep take last, in code that nothing may be raised in."""

    def look() -> float:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        return time.monotonic()

    monkeypatch.setattr(f"sockbus.blocking.{module}.monotonic", look)


@pytest.mark.parametrize("another_thread_polls", [False, True])
def test_receive_is_interrupted(another_thread_polls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        BrokerProcess() as broker,
        connect(broker.unix) as bus,
        bus.background() if another_thread_polls else contextlib.nullcontext(),
        bus.subscribe("silent") as subscription,
    ):
        # What a subscription takes first it takes without waiting, and looks at the clock for that as well.
        with pytest.raises(TimeoutError):
            subscription.receive(timeout=0.01)
        began = time.monotonic()
        interrupt_at_next_look_at_the_clock("waits", monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            subscription.receive(timeout=PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2


def test_dialling_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)
        began = time.monotonic()
        interrupt_at_next_look_at_the_clock("poller", monkeypatch)
        with pytest.raises(KeyboardInterrupt), connect(f"stream:{path}", timeout=PATIENCE):
            pass
        assert time.monotonic() - began < PATIENCE / 2
