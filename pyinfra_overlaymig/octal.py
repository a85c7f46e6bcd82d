r"""Octal escapes as in /proc/self/mountinfo: any bytes as one word of ASCII, and back."""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b'\\"')


def escape(value: bytes) -> str:
    r"""``value`` with bytes outside 0x21-0x7e, `\` and `"` as ``\ooo``."""
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in value)


def unescape(word: str) -> bytes:
    """The bytes that ``escape`` made ``word`` of; ValueError if it made no such word."""
    try:
        raw = word.encode("ascii")
    except UnicodeEncodeError as error:
        raise ValueError(f"not escaped: {word!r}") from error
    value = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), raw)
    if escape(value) != word:
        raise ValueError(f"not escaped as it should be: {word!r}")
    return value


def escape_text(text: str) -> str:
    """``text``, or a file name as Python holds it, escaped."""
    return escape(os.fsencode(text))


def unescape_text(word: str) -> str:
    """The text, or file name, that ``escape_text`` made ``word`` of."""
    return os.fsdecode(unescape(word))
