"""Octal escapes as in /proc/self/mountinfo: any name fits into one field of a line of ASCII."""

from __future__ import annotations

import re
from typing import Final

EMPTY: Final = "\\-"
"""What an empty value is written as: a field of no characters could not be seen."""

_PLAIN = frozenset(range(0x21, 0x7F)).difference(b'\\"')
_FIELD = re.compile(r"(?:[!#-\[\]-~]|\\[0-3][0-7]{2})+")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def _escape_byte(byte: int) -> str:
    return chr(byte) if byte in _PLAIN else f"\\{byte:03o}"


def escape(value: bytes) -> str:
    """``value`` as one field: printable ASCII as it is, all else as three octal digits."""
    return "".join(map(_escape_byte, value)) or EMPTY


def unescape(field: str) -> bytes:
    """The bytes that ``escape`` wrote as ``field``; anything it never writes is a ValueError."""
    if field == EMPTY:
        return b""
    if not _FIELD.fullmatch(field):
        raise ValueError(f"not an octal-escaped field: {field!r}")
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field.encode("ascii"))


def escape_text(value: str) -> str:
    """As ``escape``, of a str whose bytes are UTF-8 or stand as surrogate escapes (file names)."""
    return escape(value.encode("utf-8", "surrogateescape"))


def unescape_text(field: str) -> str:
    """As ``unescape``, to a str that holds bytes outside UTF-8 as surrogate escapes."""
    return unescape(field).decode("utf-8", "surrogateescape")
