"""Text from strangers, such as file names and attribute names, made safe to print."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, ends of lines, changes of writing direction, and halves of characters."""


def printable(text: str) -> str:
    r"""Gives a text as one line that cannot control a terminal: each unsafe character is escaped as Python does.

    >>> printable("Smiling \x1b[2J\n")
    'Smiling \\x1b[2J\\n'
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def is_printable(text: str) -> bool:
    """True where `printable` leaves a text as it is."""
    return _UNPRINTABLE.search(text) is None
