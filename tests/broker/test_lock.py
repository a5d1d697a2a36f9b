"""Who serves an address: the holder of the lock, and nothing that lies there is lost for it."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from sockbus.address import Address
from sockbus.broker import lock
from sockbus.broker.lock import Claim
from sockbus.errors import ConnectError, PermissionDenied, SockbusError
from tests.brokers import Program

FORMS = ("unix", "seqpacket", "stream")
HOLDER = """
import sys
from sockbus.address import Address
from sockbus.broker.lock import Claim
claim = Claim(Address.parse(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def address_in(place: Path, form: str) -> Address:
    return Address.parse(f"{form}:{place}/bus")


def lock_of(place: Path, form: str) -> Path:
    return place / "bus" / "seqpacket.lock" if form == "unix" else place / "bus.lock"


def listing(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def lay_socket(path: str) -> None:
    """A socket as a broker that was killed leaves it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


@pytest.mark.parametrize("form", FORMS)
def test_claim_leaves_its_pid_while_held_and_nothing_afterwards(place: Path, form: str) -> None:
    claim = Claim(address_in(place, form))
    path = lock_of(place, form)
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if form == "unix":
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    claim.release()
    assert listing(place) == []


@pytest.mark.parametrize("form", FORMS)
def test_second_claim_names_address_and_holder_and_disturbs_nothing(place: Path, form: str) -> None:
    address = address_in(place, form)
    claim = Claim(address)
    for road in address.roads():
        lay_socket(road.path)
    before = listing(place)
    with pytest.raises(ConnectError, match=rf"{address}.*\b{os.getpid()}\b"):
        Claim(address)
    assert listing(place) == before
    assert lock_of(place, form).read_text() == f"{os.getpid()}\n"
    claim.release()
    Claim(address).release()


@pytest.mark.parametrize("form", FORMS)
def test_lock_of_a_killed_holder_is_free(place: Path, form: str) -> None:
    address = address_in(place, form)
    receive, send = os.pipe()
    try:
        with Program([sys.executable, "-c", HOLDER, str(address)], stdin=receive) as holder:
            assert holder.out.next() == "held", holder.err.rest()
            for road in address.roads():
                lay_socket(road.path)
            with pytest.raises(ConnectError, match=str(holder.process.pid)):
                Claim(address)
            holder.signal(signal.SIGKILL)
            assert holder.code() == -signal.SIGKILL
        claim = Claim(address)
        for road in address.roads():
            claim.clear(road)
            assert not os.path.lexists(road.path)
        claim.release()
        assert listing(place) == []
    finally:
        os.close(receive)
        os.close(send)


@pytest.mark.parametrize("what", ["file", "directory", "symlink to a socket", "broken symlink", "fifo"])
def test_what_is_no_socket_is_left_alone(place: Path, what: str) -> None:
    address = address_in(place, "stream")
    path = place / "bus"
    if what == "file":
        path.write_text("dear")
    elif what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        if what == "symlink to a socket":
            lay_socket(str(place / "other"))
        path.symlink_to(place / "other")
    before = [(name, os.lstat(place / name)) for name in listing(place)]
    claim = Claim(address)
    with pytest.raises(ConnectError, match="not a socket"):
        claim.clear(address)
    claim.release()
    assert listing(place) == [name for name, _ in before]
    for name, found in before:
        assert os.path.samestat(os.lstat(place / name), found)


def test_claim_that_cannot_be_names_what_is_in_the_way(place: Path) -> None:
    (place / "bus").write_text("dear")
    for text, named in (
        (f"unix:{place}/bus", "not a directory"),
        (f"unix:{place}/absent/bus", "does not exist"),
        ("unix:/proc/absent", "takes no directories"),
        (f"stream:{place}/absent/bus", "does not exist"),
        (f"stream:{place}/bus/x", "served"),
        (f"unix:{place}/bus/x", "served"),
    ):
        with pytest.raises((ConnectError, PermissionDenied), match=named) as caught:
            Claim(Address.parse(text))
        assert "\n" not in str(caught.value)
    assert (listing(place), (place / "bus").read_text()) == (["bus"], "dear")


@pytest.mark.parametrize("form", FORMS)
def test_lock_that_is_a_symlink_is_not_followed(place: Path, form: str) -> None:
    victim = place / "victim"
    victim.write_text("dear")
    if form == "unix":
        (place / "bus").mkdir(0o700)
    lock_of(place, form).symlink_to(victim)
    with pytest.raises(SockbusError):
        Claim(address_in(place, form))
    assert victim.read_text() == "dear"


@pytest.mark.parametrize("form", FORMS)
def test_lock_removed_while_it_was_waited_for_is_made_again(
    place: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker before may go between our open and our flock: its file is then nobody's."""
    path = lock_of(place, form)
    real, removed = fcntl.flock, []

    def flock(fd: int, how: int) -> None:
        if not removed:
            removed.append(path)
            path.unlink()
            if form == "unix":
                path.parent.rmdir()
        real(fd, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    claim = Claim(address_in(place, form))
    assert removed
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(ConnectError):
        Claim(address_in(place, form))
    claim.release()


def test_lock_of_nobody_known_is_told_without_a_pid(place: Path) -> None:
    path = lock_of(place, "stream")
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConnectError, match="unknown"):
            Claim(address_in(place, "stream"))


def test_files_of_others_keep_the_directory(place: Path) -> None:
    claim = Claim(address_in(place, "unix"))
    (place / "bus" / "note").write_text("dear")
    claim.release()
    assert listing(place) == ["bus", "bus/note"]


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o701])
def test_default_address_refuses_an_open_directory(place: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    directory = place / "sockbus"
    directory.mkdir()
    directory.chmod(mode)
    address = Address(scheme="unix", path=str(directory), is_default=True)
    with pytest.raises(PermissionDenied, match="chmod 700"):
        Claim(address)
    assert listing(place) == ["sockbus"]


def test_one_socket_of_a_bus_cannot_be_claimed_beside_the_bus(place: Path) -> None:
    bus = Claim(address_in(place, "unix"))
    for name in ("seqpacket", "stream"):
        with pytest.raises(ConnectError, match=rf"\b{os.getpid()}\b"):
            Claim(Address.parse(f"{name}:{place}/bus/{name}"))
    bus.release()
    assert listing(place) == []
