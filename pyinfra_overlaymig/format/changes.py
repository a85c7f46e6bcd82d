"""changes.list: what a migration changed, one line for each change, sorted by the bytes of the escaped path.

FORMAT.md, "changes.list", has the fields.
"""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format import lines
from pyinfra_overlaymig.format.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

OPS: Final = {"A": "added", "C": "changed", "M": "metadata", "D": "deleted"}
TYPES: Final = tuple("fdlpsbc")
_FIELDS = 9
_NOTED = 11


class Change(NamedTuple):
    """One change. All as it is written: ``path`` is escaped, ``note`` is `-> TARGET`, `== PATH` or nothing."""

    op: str
    kind: str
    mode: str
    uid: str
    gid: str
    size: str
    sha256: str
    attributes: str
    path: str
    note: str = ""

    def line(self) -> str:
        """As a line of changes.list, without its end."""
        return " ".join(self if self.note else self[:_FIELDS])


def deleted(path: str) -> Change:
    """The change that takes the escaped ``path`` away, with all below it."""
    return Change("D", "-", "-", "-", "-", "-", "-", "-", path)


def parse(line: str) -> Change:
    """The change that a line, without its end, tells of."""
    words = line.split(" ")
    if len(words) not in (_FIELDS, _NOTED) or words[0] not in OPS or not words[_FIELDS - 1]:
        raise FormatError(f"this is no line of a changes.list: {line!r}")
    if len(words) == _NOTED and words[_FIELDS] not in ("->", "=="):
        raise FormatError(f"this line of a changes.list ends in what is no link: {line!r}")
    return Change._make([*words[:_FIELDS], " ".join(words[_FIELDS:])])


def parse_all(text: str) -> list[Change]:
    """The changes of a changes.list."""
    return [parse(line) for line in lines.split(lines.whole(text))]


def text(changes: Iterable[Change]) -> str:
    """A changes.list of ``changes``, which are in its order already."""
    return "".join(f"{change.line()}\n" for change in changes)
