"""What a broker can be told: its addresses and its limits.

Every limit is a named default in one table, ``LIMITS``; ``--limit NAME=VALUE`` and the configuration file set them. A
limit that is not in the table does not exist. docs/wire.md and docs/design.md say what happens at each.
"""

from __future__ import annotations

import resource
import tomllib
from dataclasses import dataclass, field
from typing import Any

from ..address import Address
from ..errors import SockbusError

__all__ = ["LIMITS", "Config", "ConfigError", "Limit", "Limits"]


class ConfigError(SockbusError):
    """The configuration says something that cannot be."""

    code = "config"


@dataclass(frozen=True, slots=True)
class Limit:
    """One row of the table."""

    default: int
    meaning: str
    least: int = 1
    most: int = (1 << 63) - 1


MIB = 1 << 20
MAX_DIGITS = 40

LIMITS: dict[str, Limit] = {
    "message_bytes": Limit(64 * MIB, "payload bytes of one message, as the sum of its pieces"),
    "header_bytes": Limit(4096, "bytes of one message's headers", least=0, most=32_768),
    "header_keys": Limit(32, "keys of one message's headers", least=0),
    "message_fds": Limit(16, "file descriptors of one message", least=0, most=253),
    "link_fds": Limit(64, "file descriptors on their way over one connection, each direction"),
    "total_fds": Limit(0, "file descriptors that the broker holds; 0: a quarter of the limit of open files", least=0),
    "subscriptions": Limit(512, "subscriptions of one connection", least=0),
    "servers": Limit(512, "served patterns of one connection", least=0),
    "pending_requests": Limit(4096, "unanswered requests of one connection"),
    "connections": Limit(10_000, "connections in all"),
    "connections_per_uid": Limit(1024, "connections of one user or remote host; not for root and the broker's own"),
    "handshakes": Limit(64, "connections of one listener that have not said HELLO"),
    "handshake_seconds": Limit(10, "from connecting to HELLO"),
    "incomplete_seconds": Limit(30, "an incomplete frame or message without progress"),
    "stall_seconds": Limit(10, "messages waiting for a subscription that gives no credit back"),
    "window_bytes": Limit(MIB, "published bytes of one connection that are not taken over"),
    "call_window_bytes": Limit(4 * MIB, "request bytes, and reply bytes, of one connection not taken over"),
    "link_queue_bytes": Limit(32 * MIB, "bytes queued for one connection, or left behind by one user"),
    "total_queue_bytes": Limit(512 * MIB, "bytes queued in all"),
    "retained": Limit(4096, "topics whose last value is kept", least=0),
    "retained_bytes": Limit(64 * MIB, "bytes of kept values", least=0),
    "retained_fds": Limit(256, "file descriptors of kept values", least=0),
}


class Limits:
    """The limits in force, by attribute: ``limits.message_bytes``."""

    message_bytes: int
    header_bytes: int
    header_keys: int
    message_fds: int
    link_fds: int
    total_fds: int
    subscriptions: int
    servers: int
    pending_requests: int
    connections: int
    connections_per_uid: int
    handshakes: int
    handshake_seconds: int
    incomplete_seconds: int
    stall_seconds: int
    window_bytes: int
    call_window_bytes: int
    link_queue_bytes: int
    total_queue_bytes: int
    retained: int
    retained_bytes: int
    retained_fds: int

    def __init__(self, **chosen: int) -> None:
        for name, limit in LIMITS.items():
            setattr(self, name, limit.default)
        for name, value in chosen.items():
            self.set(name, value)

    def set(self, name: str, value: int) -> None:
        """Set one; ConfigError when there is no such limit or the value is out of its range."""
        limit = LIMITS.get(name)
        if limit is None:
            raise ConfigError(f"there is no limit named {name!r}; choose from {', '.join(LIMITS)}")
        if type(value) is not int or not limit.least <= value <= limit.most:
            raise ConfigError(f"limit {name} = {value!r} is not a whole number from {limit.least} to {limit.most}")
        setattr(self, name, value)

    def parse(self, text: str) -> None:
        """Set one from ``NAME=VALUE``."""
        name, equals, value = text.partition("=")
        # More digits than any limit has, and thousands are too many for int().
        if not equals or not value.strip().isdecimal() or len(value) > MAX_DIGITS:
            raise ConfigError(f"{text!r:.80} is not NAME=VALUE with a whole number, such as message_bytes=1048576")
        self.set(name.strip(), int(value))

    def as_dict(self) -> dict[str, int]:
        """All of them by name."""
        return {name: getattr(self, name) for name in LIMITS}


@dataclass(slots=True)
class Config:
    """What one broker is told."""

    addresses: list[Address] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    insecure_tcp: bool = False

    def check(self) -> None:
        """Refuse what would expose the bus by accident."""
        for address in self.addresses:
            if address.scheme == "tcp" and not address.is_loopback and not self.insecure_tcp:
                raise ConfigError(
                    f"{address} would let other machines in without encryption or passwords; give --insecure-tcp to "
                    f"do so all the same, or listen on tcp:127.0.0.1:PORT"
                )


def load(path: str) -> Config:
    """A configuration file in TOML: ``addresses = […]``, ``insecure_tcp``, and a table ``[limits]``; ConfigError."""
    try:
        with open(path, "rb") as file:
            values: dict[str, Any] = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError and UnicodeDecodeError are ValueErrors, and so is a number of too many digits.
        raise ConfigError(f"the configuration {path} is not valid TOML: {error}") from error
    config = Config()
    for key, value in values.items():
        if key == "addresses" and _is_texts(value):
            config.addresses = [Address.parse(text) for text in value]
        elif key == "limits" and isinstance(value, dict):
            for name, number in value.items():
                config.limits.set(name, number)
        elif key == "insecure_tcp" and isinstance(value, bool):
            config.insecure_tcp = value
        else:
            raise ConfigError(
                f"the configuration {path} has no place for {key} = {value!r:.80}; it takes addresses (an array of "
                f"strings), insecure_tcp (true or false) and a table [limits]"
            )
    return config


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one: for a process that is a broker and nothing else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle_total_fds(limits: Limits) -> None:
    """Take ``total_fds`` from the soft limit of open files where it was not chosen."""
    if not limits.total_fds:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits.total_fds = max(limits.message_fds, soft // 4)
