"""The first floor of falling back: what each errno of connect and socket leads to."""

from __future__ import annotations

import errno

import pytest

from sockbus.protocol.fallback import NextStep, after_connect_error

NOT_TO_BE_HAD = {"EPROTONOSUPPORT", "EPROTOTYPE", "ESOCKTNOSUPPORT", "ENOENT", "ECONNREFUSED"}
FULL_BACKLOG = {"EAGAIN", "EWOULDBLOCK"}


@pytest.mark.parametrize("name", sorted(errno.errorcode.values()))
def test_road_is_left_only_where_the_kernel_says_it_is_not_to_be_had(name: str) -> None:
    step = after_connect_error(getattr(errno, name))
    if name in NOT_TO_BE_HAD:
        assert step is NextStep.NEXT_ROAD
    elif name in FULL_BACKLOG:
        assert step is NextStep.RETRY
    else:
        assert step is NextStep.GIVE_UP


def test_error_without_a_number_is_no_reason_to_go_on() -> None:
    assert after_connect_error(0) is NextStep.GIVE_UP
