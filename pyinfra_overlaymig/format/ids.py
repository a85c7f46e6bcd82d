"""Ids of migrations, and names of captures: one rule for both sides."""

from __future__ import annotations

import re
import time

from pyinfra_overlaymig.format.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

ID_EXAMPLE: Final = "20240206-001_add_postgresql"
_PARTS = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})-([0-9]+)_(.*)", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_NUMBER = re.compile(r"[0-9]+-[0-9]+_")
_CAPTURE = re.compile(r"[a-z0-9][a-z0-9_-]{0,76}")
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FEBRUARY = 2
_DIGITS = 3
_LAST = 999
_LONGEST = 40
_DAY = 24 * 60 * 60


def why_no_id(text: str) -> str:
    """Why ``text`` is no id, which is ``YYYYMMDD-NNN_label`` with a date of the calendar; nothing where it is one."""
    match = _PARTS.fullmatch(text)
    if match is None:
        return "it is not date, number and label: YYYYMMDD-NNN_label"
    year, month, day, number, name = match.groups()
    if not _is_date(int(year), int(month), int(day)):
        return f"{year}-{month}-{day} is no date"
    if len(number) != _DIGITS:
        return f"its number {number} has not three digits"
    if not _LABEL.fullmatch(name):
        return "its label is not 1 to 64 of a-z, 0-9 and _, beginning with a letter or digit"
    return ""


def valid_id(text: str) -> bool:
    """Whether ``text`` is an id."""
    return not why_no_id(text)


def next_id(label: str, ids: Iterable[str], now: float) -> str:
    """The id for ``label`` after all of ``ids``, at ``now`` (seconds of the epoch): the next free one of that day, or
    of the newest one's day if that is later. FormatError where there is none.
    """
    last = max(filter(valid_id, ids), default="")
    day, number = time.strftime("%Y%m%d", time.gmtime(now)), 0
    if last[:8] >= day:
        day, number = last[:8], int(last[9:12])
        if number >= _LAST:
            day, number = _day_after(day), 0
    plain = re.sub(r"[^a-z0-9]", "_", label)[:_LONGEST].strip("_")
    found = f"{day}-{number + 1:03d}_{plain}"
    if why := why_no_id(found):
        raise FormatError(f"there is no id for {label!r} after {last or 'none'}: {why}")
    return found


def _day_after(day: str) -> str:
    import calendar

    noon = calendar.timegm((int(day[:4]), int(day[4:6]), int(day[6:]), 12, 0, 0))
    return time.strftime("%Y%m%d", time.gmtime(noon + _DAY))


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
