"""What a user holds: decoded on first use, and closed with its message."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import pickle
from collections.abc import Callable

import msgpack
import pytest

from sockbus.errors import PayloadError
from sockbus.fd import Fd
from sockbus.message import Message, Peer, Receipt, Reply

SENDER = Peer(id=3, name="kitchen", transport="stream", uid=1000, gid=1000, pid=77)


def message(payload: object = None, **fields: object) -> Message:
    return Message("sensors.temp", msgpack.packb(payload), SENDER, **fields)  # type: ignore[arg-type]


def open_files(count: int) -> tuple[Fd, ...]:
    return tuple(Fd(os.memfd_create("passed")) for _ in range(count))


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


def test_message_tells_what_came() -> None:
    came = message({"c": 21.5}, fds_missing=2, lost=4)
    assert (came.topic, came.payload, came.sender) == ("sensors.temp", {"c": 21.5}, SENDER)
    assert came.data == msgpack.packb({"c": 21.5})
    assert (came.fds, came.fds_missing, came.lost, came.headers) == ((), 2, 4, {})
    assert repr(came) == "<Message 'sensors.temp' from peer 3, 12 bytes>"
    with message(fds=open_files(2)) as came:
        assert repr(came) == "<Message 'sensors.temp' from peer 3, 1 bytes, 2 fds>"


def test_payload_is_decoded_once() -> None:
    came = message([1, 2])
    came.payload.append(3)
    assert came.payload == [1, 2, 3]
    assert message(b"raw").payload == b"raw"


def test_payload_that_is_no_msgpack_leaves_its_bytes() -> None:
    came = Message("a", b"\xc1", SENDER)
    for _ in range(2):
        with pytest.raises(PayloadError, match=r"raw bytes are in \.data"):
            came.payload  # noqa: B018  # the property raises
    assert came.data == b"\xc1"


def test_headers_are_decoded_once() -> None:
    came = message(headers=msgpack.packb({"trace": b"\x01", "hops": 3}))
    assert came.headers == {"trace": b"\x01", "hops": 3}
    assert came.headers is came.headers


def test_headers_that_are_not_as_specified_are_a_payload_error() -> None:
    came = message(5, headers=b"\x81\xa1a\x90")
    with pytest.raises(PayloadError, match="header 'a' is a list"):
        came.headers  # noqa: B018  # the property raises
    assert came.payload == 5


def leave(came: Message) -> None:
    with came as entered:
        assert entered is came


def fail_within(came: Message) -> None:
    with pytest.raises(KeyError), came:
        raise KeyError


@pytest.mark.parametrize("end", [Message.close, leave, fail_within])
def test_message_closes_its_fds(end: Callable[[Message], object]) -> None:
    fds = open_files(3)
    numbers = [fd.fileno() for fd in fds]
    came = message(fds=fds)
    end(came)
    assert all(fd.closed for fd in fds)
    assert not any(map(is_open, numbers))
    end(came)
    assert came.payload is None


def test_message_nobody_looks_at_leaks_no_fds() -> None:
    numbers = [fd.fileno() for fd in message(fds=open_files(3)).fds]
    assert not any(map(is_open, numbers))


def test_fd_that_was_handed_on_outlives_its_message() -> None:
    with message(fds=open_files(3)) as came:
        number = came.fds[0].detach()
        file = came.fds[1].open("r+b")
        last = came.fds[2].fileno()
    assert (is_open(number), is_open(file.fileno()), is_open(last)) == (True, True, False)
    os.close(number)
    file.close()


def test_fd_that_is_kept_stays_open_without_its_message() -> None:
    came = message(fds=open_files(1))
    kept = came.fds[0]
    del came
    assert is_open(kept.fileno())
    kept.close()


PICKLED = [functools.partial(pickle.dumps, protocol=protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]


@pytest.mark.parametrize("dumps", PICKLED)
def test_pickled_message_without_fds_comes_back_whole(dumps: Callable[[object], bytes]) -> None:
    came = message({"c": 21.5}, fds_missing=2, lost=4, headers=msgpack.packb({"hops": 3}))
    for _ in range(2):
        again = pickle.loads(dumps(came))
        assert (again.topic, again.payload, again.data, again.sender) == (came.topic, {"c": 21.5}, came.data, SENDER)
        assert (again.fds, again.fds_missing, again.lost, again.headers) == ((), 2, 4, {"hops": 3})
        # The second time it has been decoded.
        assert (came.payload, came.headers) == ({"c": 21.5}, {"hops": 3})


@pytest.mark.parametrize("dumps", PICKLED)
@pytest.mark.parametrize("value", [SENDER, Receipt(4, 2, 1, 1), Reply(["text"], headers={"hops": 3})])
def test_pickled_value_comes_back_whole(dumps: Callable[[object], bytes], value: object) -> None:
    assert pickle.loads(dumps(value)) == value


@pytest.mark.parametrize("use", [*PICKLED, copy.copy, copy.deepcopy])
def test_fds_are_neither_pickled_nor_copied_with_what_holds_them(use: Callable[[object], object]) -> None:
    with message("with a file", fds=open_files(1)) as came:
        for holder in (came, came.fds[0]):
            with pytest.raises(TypeError, match=r"Fd can be neither .* another process; publish it, with fds="):
                use(holder)
        with pytest.raises(TypeError, match="neither"):
            pickle.dumps(Reply(fds=came.fds))
        assert is_open(came.fds[0].fileno())


@pytest.mark.parametrize("value", [SENDER, Receipt(4, 2, 1, 1), Reply("text")])
def test_values_are_frozen(value: object) -> None:
    assert not hasattr(value, "__dict__")
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
    assert value == dataclasses.replace(value)  # type: ignore[type-var]


def test_reply_is_empty_where_nothing_is_said() -> None:
    assert (Reply().payload, Reply().headers, Reply().fds) == (None, None, ())


def test_message_that_was_kept_says_so_and_copies_do() -> None:
    came = message(1)
    assert not came.retained
    came.retained = True
    assert came.retained
    assert copy.copy(came).retained
    assert pickle.loads(pickle.dumps(came)).retained
    assert not pickle.loads(pickle.dumps(message(1))).retained
