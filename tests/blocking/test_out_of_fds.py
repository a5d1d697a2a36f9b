"""A process that is at its limit of open files."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from sockbus.blocking import connect
from tests.brokers import BrokerProcess


def test_connecting_leaves_no_socket_behind_when_there_is_no_descriptor_but_that() -> None:
    with BrokerProcess() as broker:
        next_fd = os.dup(0)
        os.close(next_fd)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd + 1, hard))
        try:
            # The tests' own guard sees what stays open, and a socket left to the garbage collector warns.
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)), connect(broker.stream):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
