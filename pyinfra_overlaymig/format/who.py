"""who.list: which process changed what; FORMAT.md, "who.list", has the lines. Paths are escaped as in changes.list."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format import lines
from pyinfra_overlaymig.format.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

WHAT: Final = ("transient", "unchanged", "left-out", "state")
SOURCES: Final = ("change", "record")


class Process(NamedTuple):
    """The ``number``-th program that ran; ``parent``: the number of what started it, or 0."""

    number: int
    parent: int
    pid: int
    program: str
    arguments: tuple[str, ...] = ()

    def line(self) -> str:
        """As a line of who.list, without its end."""
        return " ".join(("process", str(self.number), str(self.parent), str(self.pid), self.program, *self.arguments))


class Path(NamedTuple):
    """A path of changes.list and the process that changed it last; ``package`` is `-` where dpkg knows none."""

    number: int
    package: str
    path: str

    def line(self) -> str:
        """As a line of who.list, without its end."""
        return f"path {self.number} {self.package} {self.path}"


class Also(NamedTuple):
    """A path that audit saw written and that is in no changes.list; ``what``: why."""

    what: str
    number: int
    path: str

    def line(self) -> str:
        """As a line of who.list, without its end."""
        return f"also {self.what} {self.number} {self.path}"


class Puzzle(NamedTuple):
    """A path that only one source knows: `change`, the upper directory, or `record`, audit."""

    source: str
    reason: str
    path: str

    def line(self) -> str:
        """As a line of who.list, without its end."""
        return f"unexplained {self.source} {self.reason} {self.path}"


class Who(NamedTuple):
    """A who.list. ``changes``: in the order of changes.list; ``others``: what else was seen, by path."""

    processes: tuple[Process, ...] = ()
    changes: tuple[Path | Puzzle, ...] = ()
    others: tuple[Also | Puzzle, ...] = ()


def parse_line(line: str) -> Process | Path | Also | Puzzle:
    """What a line of who.list, without its end, says."""
    kind, *words = line.split(" ")
    try:
        if kind == "process":
            number, parent, pid = (lines.number(word, "a number of a process") for word in words[:3])
            return Process(number, parent, pid, words[3], tuple(words[4:]))
        first, second, path = words
        if kind == "path":
            return Path(lines.number(first, "the number of a process"), second, path)
        if kind == "also":
            return Also(first, lines.number(second, "the number of a process"), path)
        if kind == "unexplained" and first in SOURCES:
            return Puzzle(first, second, path)
    except (ValueError, IndexError) as error:
        raise FormatError(f"this is no line of a who.list: {line!r}") from error
    raise FormatError(f"this is no line of a who.list: {line!r}")


def parse(text_: str) -> Who:
    """The who.list that ``text_`` is."""
    found = [parse_line(line) for line in lines.split(lines.whole(text_))]
    return Who(
        tuple(one for one in found if isinstance(one, Process)),
        tuple(one for one in found if isinstance(one, (Path, Puzzle)) and not _is_other(one)),
        tuple(one for one in found if isinstance(one, (Also, Puzzle)) and _is_other(one)),
    )


def _is_other(one: Path | Also | Puzzle) -> bool:
    return isinstance(one, Also) or (isinstance(one, Puzzle) and one.source == "record")


def text(who: Who) -> str:
    """The file: processes, then what is said of changes, then what else was seen."""
    return "".join(f"{one.line()}\n" for kind in who for one in kind)
