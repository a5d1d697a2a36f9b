"""Markdown pages, as tests take them apart."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Block", "blocks", "fenced"]


class Block(NamedTuple):
    """Fenced text, and what stands behind its fence."""

    language: str
    text: str


def fenced(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [Block(*found) for found in re.findall(r"^```(.*)\n((?:.*\n)*?)```$", page, re.M)]


def blocks(page: str, language: str) -> list[str]:
    """The fenced code of one language."""
    return [block.text for block in fenced(page) if block.language == language]
