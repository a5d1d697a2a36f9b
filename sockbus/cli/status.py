"""``sockbus status``: the broker's account of itself."""

from __future__ import annotations

from argparse import Namespace

from . import payload, table
from .client import bus
from .interruption import interruption
from .output import escaped, write

__all__ = ["status"]


@interruption()
def status(arguments: Namespace) -> None:
    """Print the account."""
    with bus(arguments) as connection:
        page = connection.request("$SYS.status").payload
    if arguments.json:
        text = f"{payload.json_text(payload.json_form(page))}\n"
    else:
        text = "".join(f"{escaped(line)}\n" for line in table.lines(page))
    write(text.encode())
