"""Octal escapes: any name fits into one field of a line. Two alphabets, as FORMAT.md has them.

``escape`` is that of plans, as in /proc/self/mountinfo: ASCII only. ``escape_path`` is that of changes.list: only what
would break a line or a field is escaped, all other bytes stand as they are.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

EMPTY: Final = "\\-"
"""What an empty value is written as: a field of no characters could not be seen."""

_PLAIN_BYTES = frozenset(range(0x21, 0x7F)).difference(b'\\"')
_PLAIN = re.compile(rb"[!#-\[\]-~]+")
_FIELD = re.compile(r"(?:[!#-\[\]-~]|\\[0-3][0-7]{2})+")
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
_BREAKS = {ord(character): f"\\{ord(character):03o}" for character in " \t\n\\"}


def _escape_byte(byte: int) -> str:
    return chr(byte) if byte in _PLAIN_BYTES else f"\\{byte:03o}"


def escape(value: bytes) -> str:
    """``value`` as one field: printable ASCII as it is, all else as three octal digits."""
    if _PLAIN.fullmatch(value):
        return value.decode("ascii")
    return "".join(map(_escape_byte, value)) or EMPTY


def unescape(field: str) -> bytes:
    """The bytes that ``escape`` wrote as ``field``; anything it never writes is a ValueError."""
    if field == EMPTY:
        return b""
    if not _FIELD.fullmatch(field):
        raise ValueError(f"not an octal-escaped field: {field!r}")
    return _plain(field.encode("ascii"))


def escape_text(value: str) -> str:
    """As ``escape``, of a str whose bytes are UTF-8 or stand as surrogate escapes (file names)."""
    return escape(value.encode("utf-8", "surrogateescape"))


def unescape_text(field: str) -> str:
    """As ``unescape``, to a str that holds bytes outside UTF-8 as surrogate escapes."""
    return unescape(field).decode("utf-8", "surrogateescape")


def escape_path(path: str) -> str:
    """``path`` as a field of changes.list: blanks, tabs, newlines and backslashes as three octal digits."""
    return path.translate(_BREAKS)


def unescape_path(field: str) -> str:
    """The path that ``escape_path`` wrote as ``field``; it also reads what ``escape`` wrote, but for an empty value."""
    if "\\" not in field:
        return field
    return _plain(field.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _plain(escaped: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), escaped)
