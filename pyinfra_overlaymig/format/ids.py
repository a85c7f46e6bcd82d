"""Ids of migrations, and names of captures: one rule for both sides."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ID_EXAMPLE: Final = "20240206-001_add_postgresql"
ID: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})-[0-9]{3}_[a-z0-9][a-z0-9_]{0,63}")
_NUMBER = re.compile(r"[0-9]+-[0-9]+_")
_CAPTURE = re.compile(r"[a-z0-9][a-z0-9_-]{0,76}")
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FEBRUARY = 2


def valid_id(text: str) -> bool:
    """Whether ``text`` is an id: ``YYYYMMDD-NNN_label``, with a date of the calendar."""
    match = ID.fullmatch(text)
    return match is not None and _is_date(*map(int, match.groups()))


def _is_date(year: int, month: int, day: int) -> bool:
    """Not by datetime: it takes longer to load than all else that is read of a plan."""
    if not (year and 1 <= month <= len(_DAYS)):
        return False
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 1 <= day <= _DAYS[month - 1] + (leap and month == _FEBRUARY)


def label(id: str) -> str:
    """What an id says in words: its part after date and number; anything else as it is."""
    return _NUMBER.sub("", id)


def capture_name(text: str) -> bool:
    """Whether ``text`` may name a record: an id of a migration has this form too."""
    return bool(_CAPTURE.fullmatch(text))
