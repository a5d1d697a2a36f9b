"""Child processes: what the way from fork to exec leaves to ``run`` is seen there."""

from __future__ import annotations

import subprocess
import sys

from tests.brokers import PATIENCE, environment


def test_child_whose_parent_has_ended_before_it_could_be_tied_to_it_ends() -> None:
    program = "from sockbus.cli.child import die_with; die_with(-1); print('goes on')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")
