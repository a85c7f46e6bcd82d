"""Lines of `key value`: the form of every small file on a machine. What a value may be, its record's module knows."""

from __future__ import annotations

from pyinfra_overlaymig.format.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST_DIGITS = 19
"""More would be no size and no count of anything, and int() takes its time for very many."""


def split(text: str) -> list[str]:
    """The lines of ``text``; not by splitlines(), which takes more than a newline for an end."""
    return text.removesuffix("\n").split("\n") if text else []


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Key and value of each line; a line of one word has an empty value."""
    for line in split(text):
        key, _, value = line.partition(" ")
        yield key, value


def values(text: str, key: str) -> list[str]:
    """The values of ``key``, in their order."""
    return [value for found, value in pairs(text) if found == key]


def value(text: str, key: str, default: str = "") -> str:
    """The first value of ``key``, ``default`` where there is none."""
    return next((value for found, value in pairs(text) if found == key), default)


def join(found: Iterable[tuple[str, object]]) -> str:
    """The text whose ``pairs`` these are."""
    return "".join(f"{key} {value}\n" for key, value in found)


def whole(text: str) -> str:
    """``text``, which has to be empty or end with its last line; FormatError where it was cut off."""
    if text and not text.endswith("\n"):
        raise FormatError("its last line has no end: a part of it is missing")
    return text


def number(text: str, what: str, lowest: int = 0, highest: int | None = None) -> int:
    """``text`` as a whole number within bounds, or FormatError, which calls it ``what``."""
    if not (text.isascii() and text.isdecimal()) or len(text) > _MOST_DIGITS:
        raise FormatError(f"{what} is {text!r}, which is no whole number")
    found = int(text)
    if found < lowest or (highest is not None and found > highest):
        bounds = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
        raise FormatError(f"{what} is {found}, and may be {bounds}")
    return found


def one_of(text: str, what: str, known: tuple[str, ...]) -> str:
    """``text``, if it is ``known``, or FormatError, which calls it ``what``."""
    if text not in known:
        raise FormatError(f"{what} is {text!r}, and may be one of {', '.join(known)}")
    return text
