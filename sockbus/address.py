"""The grammar of addresses, and which one is the default.

An address is text that names a bus: ``unix:DIR``, ``seqpacket:PATH``, ``stream:PATH`` or ``tcp:HOST:PORT``.
This room turns text into an Address and back, and says which concrete addresses, its *roads*, to try in
which order. It opens and inspects nothing: whether a directory is safe or a host exists is for those who
connect and listen. Whatever an address gets wrong is found here, before a system call could put it less
clearly.

Invariant: ``str(Address.parse(text)) == text`` for all text that is accepted; paths and hosts stay as
given.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, final

from .errors import ConnectError

__all__ = ["MAX_PATH_BYTES", "Address", "Scheme", "default_address"]

Scheme = Literal["unix", "seqpacket", "stream", "tcp"]

#: What ``sun_path`` holds besides its closing NUL, unix(7).
MAX_PATH_BYTES = 107

_FORMS = "unix:DIR, seqpacket:PATH, stream:PATH or tcp:HOST:PORT"
# NUL ends a path early; line breaks and the like would spoil `listening on ADDRESS` and one-line errors.
_find_control = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]").search
_is_port = re.compile(r"0|[1-9][0-9]{0,4}").fullmatch  # no leading zero: the text must come back the same
_is_host = re.compile(r"[^\s\[\]/:]{1,253}").fullmatch

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 160
_short.fillvalue = "…"


@final
@dataclass(frozen=True, slots=True)
class Address:
    """Where a bus is. Made by ``parse`` or ``default_address``, which check what the constructor does not.

    ``path`` is "" for ``tcp``; ``host`` (IPv6 without brackets) is "" and ``port`` 0 for all others.
    ``is_default`` says that nobody chose this address: it is the built-in default, or a road of it, so its
    directory must be one's own and closed to others. That takes no part in comparison.
    """

    scheme: Scheme
    path: str = ""
    host: str = ""
    port: int = 0
    is_default: bool = field(default=False, compare=False, repr=False)

    @staticmethod
    def parse(text: str) -> Address:
        """The address that the text spells. Raises ConnectError. Port 0 passes: one can listen on it."""
        return _parse(text, origin="")

    def __str__(self) -> str:
        if self.scheme != "tcp":
            return f"{self.scheme}:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is in 127.0.0.0/8, ::1 or ``localhost``; other spellings, and paths, are not."""
        if self.host.lower() == "localhost":
            return True
        # Here, for it takes 2 ms to load, and most programs need it for nothing.
        import ipaddress

        try:
            host = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        # Not `is_loopback` for IPv6: Pythons differ on whether ::ffff:127.0.0.1 is.
        return host.is_loopback if host.version == 4 else host == ipaddress.IPv6Address("::1")

    def roads(self) -> tuple[Address, ...]:
        """The concrete addresses to try, in order. They are as default as this one."""
        if self.scheme != "unix":
            return (self,)
        return (
            replace(self, scheme="seqpacket", path=os.path.join(self.path, "seqpacket")),
            replace(self, scheme="stream", path=os.path.join(self.path, "stream")),
        )


def default_address(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Address:
    """``$SOCKBUS_ADDRESS``, else ``unix:$XDG_RUNTIME_DIR/sockbus``, else ``unix:/tmp/sockbus-UID``.

    UID is the effective one unless given. An empty variable counts as unset, and so does a relative
    ``$XDG_RUNTIME_DIR``, as its specification wants. Raises ConnectError for an address that cannot be used,
    naming the variable; it never falls through to the next.
    """
    if chosen := environ.get("SOCKBUS_ADDRESS"):
        return _parse(chosen, origin=" in $SOCKBUS_ADDRESS")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        address = _parse(f"unix:{os.path.join(runtime, 'sockbus')}", origin=" under $XDG_RUNTIME_DIR")
    else:
        address = Address("unix", path=f"/tmp/sockbus-{os.geteuid() if uid is None else uid}")
    return replace(address, is_default=True)


def _parse(text: object, *, origin: str) -> Address:
    named = f"the address {_short.repr(text)}{origin}"
    if not isinstance(text, str):
        named = named.replace("\n", " ")  # a foreign repr may have lines
        raise ConnectError(f"{named} is of type {type(text).__name__}; give a str: {_FORMS}")
    if found := _find_control(text):
        raise ConnectError(f"{named} holds the control character U+{ord(found[0]):04X}; leave it out")
    scheme, _, rest = text.partition(":")
    match scheme:
        case "unix" | "seqpacket" | "stream":
            return _parse_path(scheme, rest, named)
        case "tcp":
            return _parse_tcp(rest, named)
    raise ConnectError(f"{named} begins with no known scheme; use {_FORMS}")


def _parse_path(scheme: Literal["unix", "seqpacket", "stream"], path: str, named: str) -> Address:
    if not path:
        raise ConnectError(f"{named} has no path; use {_FORMS}")
    address = Address(scheme, path=path)
    try:
        path.encode()  # the address must also be printed and sent, whatever the file system's encoding is
        size = max(len(os.fsencode(road.path)) for road in address.roads())
    except UnicodeEncodeError as error:
        raise ConnectError(
            f"{named} cannot be encoded at character {error.start + 1} of its path; choose a path in UTF-8"
        ) from error
    if size > MAX_PATH_BYTES:
        raise ConnectError(
            f"{named} gives a socket a path of {size} bytes, and the system's limit is {MAX_PATH_BYTES}; "
            f"choose one at least {size - MAX_PATH_BYTES} bytes shorter"
        )
    return address


def _parse_tcp(rest: str, named: str) -> Address:
    host, colon, port = rest.rpartition(":")
    if not colon or not host:
        raise ConnectError(f"{named} lacks a host or a port; use {_FORMS}")
    if not _is_port(port) or int(port) > 65535:
        raise ConnectError(f"{named} has no port from 0 to 65535 at its end; use {_FORMS}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        # Here, as above.
        import ipaddress

        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ConnectError(
                f"{named} has no IPv6 address in its brackets; use one, as in tcp:[::1]:{port}"
            ) from error
    elif ":" in host:
        raise ConnectError(f"{named} has colons in its host; put IPv6 in brackets, as in tcp:[::1]:{port}")
    elif not _is_host(host) or not _is_encodable(host):
        raise ConnectError(f"{named} has a host that is no name and no IP address; use one, as in tcp:localhost:{port}")
    return Address("tcp", host=host, port=int(port))


def _is_encodable(host: str) -> bool:
    """Whether getaddrinfo() takes the name; for one that it does not it raises UnicodeError, no OSError."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True
