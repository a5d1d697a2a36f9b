"""Gates: first come, first served, and a place is never lost."""

from __future__ import annotations

from sockbus.client.need import Gate


class Waiter:
    def __init__(self, name: str, woken: list[str]) -> None:
        self.name = name
        self.woken = woken

    def wake(self) -> None:
        self.woken.append(self.name)


def gate_of(*names: str) -> tuple[Gate, dict[str, Waiter], list[str]]:
    gate, woken = Gate(), list[str]()
    waiters = {name: Waiter(name, woken) for name in names}
    wakes = {name: waiter.wake for name, waiter in waiters.items()}
    for wake in wakes.values():
        gate.attach(wake)
    return gate, waiters, woken


def test_those_who_wait_are_woken_in_order_as_many_as_said() -> None:
    gate, _, woken = gate_of("a", "b", "c")
    assert (gate.open(2), woken, len(gate.waiting)) == (2, ["a", "b"], 1)
    assert (gate.open(5), woken, len(gate.waiting)) == (1, ["a", "b", "c"], 0)
    assert gate.open() == 0
    gate, _, woken = gate_of("a", "b")
    gate.open_all()
    assert woken == ["a", "b"]


def test_one_that_gives_up_is_not_woken() -> None:
    gate, waiters, woken = gate_of("a", "b")
    gate.detach(waiters["a"].wake)
    gate.open_all()
    assert woken == ["b"]


def test_one_that_gives_up_when_it_was_woken_already_passes_its_place_on() -> None:
    gate, waiters, woken = gate_of("a", "b", "c")
    gate.open()
    gate.detach(waiters["a"].wake)
    assert (woken, len(gate.waiting)) == (["a", "b"], 1)
