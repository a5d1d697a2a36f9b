"""Accounts and the porch, with links that are nothing but an account."""

from __future__ import annotations

import os
from typing import cast

import pytest
import trio

from sockbus.broker.admission import PORCH_PATIENCE, PORCH_SHARE, Account, Admission, Porch
from sockbus.broker.config import Limits
from sockbus.broker.link import Link
from sockbus.errors import LimitExceeded

STRANGER = 65_534 if os.geteuid() != 65_534 else 65_533


class Peer:
    """As much of a link as admission looks at."""

    def __init__(self, key: str = "uid 1") -> None:
        self.account = Account(key, None)

    @property
    def link(self) -> Link:
        return cast("Link", self)


def admit(admission: Admission, count: int, uid: int | None, host: str = "") -> list[tuple[Link, Account]]:
    links = [Peer().link for _ in range(count)]
    return [(link, admission.admit(link, uid, host)) for link in links]


@pytest.mark.parametrize(("uid", "host"), [(STRANGER, ""), (None, "192.0.2.1")])
def test_stranger_has_so_many_connections(uid: int | None, host: str) -> None:
    admission = Admission(Limits(connections_per_uid=3))
    admitted = admit(admission, 3, uid, host)
    with pytest.raises(LimitExceeded, match="connections_per_uid"):
        admit(admission, 1, uid, host)
    admission.leave(admitted[0][1], admitted[0][0])
    admit(admission, 1, uid, host)


@pytest.mark.parametrize("uid", {0, os.geteuid()})
def test_root_and_the_own_user_have_all_connections(uid: int) -> None:
    admission = Admission(Limits(connections=3, connections_per_uid=1))
    admit(admission, 3, uid)
    with pytest.raises(LimitExceeded, match="connections"):
        admit(admission, 1, uid)


def test_all_together_have_so_many_connections() -> None:
    admission = Admission(Limits(connections=3))
    admit(admission, 1, STRANGER)
    admit(admission, 1, None, "192.0.2.1")
    admit(admission, 1, None, "192.0.2.2")
    with pytest.raises(LimitExceeded, match="connections"):
        admit(admission, 1, None, "192.0.2.3")


def test_refused_connection_leaves_no_account() -> None:
    admission = Admission(Limits(connections=1))
    admit(admission, 1, STRANGER)
    for host in ("192.0.2.1", "192.0.2.2"):
        with pytest.raises(LimitExceeded):
            admit(admission, 1, None, host)
    assert list(admission._accounts) == [f"uid {STRANGER}"]


def test_a_host_is_not_a_user() -> None:
    admission = Admission(Limits(connections_per_uid=1))
    admit(admission, 1, STRANGER)
    admit(admission, 1, None, str(STRANGER))
    with pytest.raises(LimitExceeded):
        admit(admission, 1, STRANGER)


def test_leaving_twice_counts_once() -> None:
    admission = Admission(Limits(connections=2))
    (link, account), _ = admit(admission, 2, STRANGER)
    admission.leave(account, link)
    admission.leave(account, link)
    admit(admission, 1, STRANGER)
    with pytest.raises(LimitExceeded):
        admit(admission, 1, STRANGER)


@pytest.mark.parametrize(("left", "overdrawn"), [(99, False), (100, True), (101, True)])
def test_account_is_overdrawn_from_the_limit_on(left: int, overdrawn: bool) -> None:
    admission = Admission(Limits(link_queue_bytes=100))
    ((_, account),) = admit(admission, 1, STRANGER)
    account.orphaned_bytes = left
    assert admission.is_overdrawn(account) is overdrawn


def test_account_is_kept_as_long_as_something_is_left_on_it() -> None:
    admission = Admission(Limits(link_queue_bytes=100))
    ((link, account),) = admit(admission, 1, STRANGER)
    account.orphaned_bytes = 100
    admission.leave(account, link)
    ((again, same),) = admit(admission, 1, STRANGER)
    assert same is account
    assert admission.is_overdrawn(same)
    admission.leave(same, again)
    account.orphaned_bytes = 0
    admission.forget(account)
    ((_, other),) = admit(admission, 1, STRANGER)
    assert other is not account


class TestPorch:
    """Connections that have not said HELLO."""

    @staticmethod
    def crowd(limit: int, *keys: str, at: float = 0.0) -> tuple[Porch, list[Link]]:
        porch = Porch(Limits(handshakes=limit))
        links = [Peer(key).link for key in keys]
        for link in links:
            porch.enter(link, at)
        return porch, links

    @pytest.mark.parametrize(("count", "full"), [(2, False), (3, True), (4, True)])
    def test_is_full_from_the_limit_on(self, count: int, full: bool) -> None:
        porch, _ = self.crowd(3, *["uid 1"] * count)
        assert porch.is_full is full

    @pytest.mark.parametrize(
        ("crowd", "age", "goes"),
        [
            (PORCH_SHARE, PORCH_PATIENCE, False),
            (PORCH_SHARE + 1, PORCH_PATIENCE, True),
            (PORCH_SHARE + 1, PORCH_PATIENCE - 0.01, False),
        ],
    )
    def test_the_oldest_of_a_crowd_makes_way_after_a_while(self, crowd: int, age: float, goes: bool) -> None:
        porch, links = self.crowd(64, "uid 2", *["uid 1"] * crowd)
        assert porch.make_way(age) is (links[1] if goes else None)

    def test_the_few_never_make_way(self) -> None:
        porch, _ = self.crowd(64, *[f"host {number % 8}" for number in range(8 * PORCH_SHARE)])
        assert porch.is_full
        assert porch.make_way(1000.0) is None

    def test_who_has_left_counts_no_more(self) -> None:
        porch, links = self.crowd(64, *["uid 1"] * (PORCH_SHARE + 1))
        porch.leave(links[-1])
        porch.leave(links[-1])
        assert len(porch) == PORCH_SHARE
        assert porch.make_way(1000.0) is None

    async def test_change_is_told_at_once(self, autojump_clock: trio.testing.MockClock) -> None:
        porch, links = self.crowd(64, "uid 1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(porch.changed, 1000.0)
            await trio.testing.wait_all_tasks_blocked()
            porch.leave(links[0])
        assert trio.current_time() < 1.0

    async def test_change_is_waited_for_so_long_only(self, autojump_clock: trio.testing.MockClock) -> None:
        porch, _ = self.crowd(64, "uid 1")
        before = trio.current_time()
        await porch.changed(5.0)
        assert trio.current_time() - before == pytest.approx(5.0)
