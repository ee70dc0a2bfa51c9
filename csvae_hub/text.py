"""Text from strangers, such as file names and attribute names, made safe to print; and values given as text."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

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


def is_address(text: str) -> bool:
    """True for a web address, or one of another scheme with ://.

    >>> is_address("https://example.org/a.png"), is_address("C:/a.png")
    (True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def value_of(text: str) -> bool | float | list[float] | str | Path:
    """The value of an attribute that a text stands for, in Python and on the command line; "sample" stays as it is.

    >>> value_of("True"), value_of("0.5"), value_of("2.5,1.0"), value_of("sample")
    (True, 0.5, [2.5, 1.0], 'sample')

    Raises:
        ValueError: the text is none of these and no file's name.
    """
    words: dict[str, bool | str] = {"true": True, "false": False, "sample": "sample"}
    if text.lower() in words:
        return words[text.lower()]
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        if os.path.isfile(text):  # noqa: PTH113 (False for a text that can be no name)
            return Path(text)
        if is_address(text):
            raise ValueError(
                f"expected the name of a file, got a web address: download the picture first: {text}"
            ) from None
        raise ValueError(
            "expected True, False, a number, coordinates such as 2.5,1.0, 'sample' or the name of a picture that is"
            f" there, got {text!r}"
        ) from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected finite numbers, got {text!r}")
    return numbers if len(numbers) > 1 else numbers[0]
