"""Who may come in, and on whose account.

Peers are counted by account: a user on this machine (uid, SO_PEERCRED), or a remote host. ``Admission`` holds the
accounts and refuses what would be too many; a ``Porch`` holds the connections of one listener that have not said
HELLO yet, so that silent ones cannot keep others out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, final

import trio

from ..errors import LimitExceeded
from .config import Limits

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Account", "Admission", "Porch"]

# While others wait, connections of one account beyond this many make way once they are this old, in seconds.
PORCH_SHARE = 8
PORCH_PATIENCE = 1.0


@final
class Account:
    """What one user, or one remote host, has here.

    ``orphaned_bytes``: published by links that are gone, and waiting.
    """

    def __init__(self, key: str, uid: int | None) -> None:
        self.key = key
        self.uid = uid
        self.links: dict[Link, None] = {}
        self.orphaned_bytes = 0


@final
class Admission:
    """The accounts of one broker."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._accounts: dict[str, Account] = {}
        self._connections = 0

    def admit(self, link: Link, uid: int | None, host: str) -> Account:
        """The account of a new link, on which it is entered; LimitExceeded."""
        key = f"host {host}" if uid is None else f"uid {uid}"
        account = self._accounts.get(key)
        if account is None:
            account = Account(key, uid)
        limit = self._limits.connections_per_uid
        if uid in (0, os.geteuid()):
            limit = self._limits.connections
        if len(account.links) >= limit:
            name = "connections" if uid in (0, os.geteuid()) else "connections_per_uid"
            raise LimitExceeded(f"{key} has {limit} connections, as many as {name} allows; close some")
        if self._connections >= self._limits.connections:
            raise LimitExceeded(
                f"the broker has {self._connections} connections, as many as connections allows; close some, or raise "
                f"it with --limit connections=N"
            )
        self._accounts[key] = account
        account.links[link] = None
        self._connections += 1
        return account

    def leave(self, account: Account, link: Link) -> None:
        """A link has gone."""
        if link in account.links:
            del account.links[link]
            self._connections -= 1
        self.forget(account)

    def forget(self, account: Account) -> None:
        """Drop an account on which nothing is left."""
        if not account.links and not account.orphaned_bytes:
            self._accounts.pop(account.key, None)

    def is_overdrawn(self, account: Account) -> bool:
        """Whether so much was left behind that the account's links get no new window."""
        return account.orphaned_bytes >= self._limits.link_queue_bytes


@final
class Porch:
    """The links of one listener that have not said HELLO, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._links: dict[Link, float] = {}
        self._waiting = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._links)

    def enter(self, link: Link, now: float) -> None:
        """A connection was accepted."""
        self._links[link] = now

    def leave(self, link: Link) -> None:
        """It has said HELLO, or has gone."""
        self._links.pop(link, None)
        self._waiting.unpark_all()

    async def changed(self, seconds: float) -> None:
        """Wait until a link has left, for so long at most."""
        with trio.move_on_after(seconds):
            await self._waiting.park()

    @property
    def is_full(self) -> bool:
        """Whether the rest stays in the backlog."""
        return len(self._links) >= self._limits.handshakes

    def make_way(self, now: float) -> Link | None:
        """While others wait on a full porch: the link that should go, if one has waited long on a crowded account."""
        crowd: dict[str, int] = {}
        for link in self._links:
            crowd[link.account.key] = crowd.get(link.account.key, 0) + 1
        for link, since in self._links.items():
            if now - since < PORCH_PATIENCE:
                return None
            if crowd[link.account.key] > PORCH_SHARE:
                return link
        return None
