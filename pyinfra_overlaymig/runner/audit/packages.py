"""Which package each path belongs to, as dpkg's lists know it."""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.runner import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

INFO = "var/lib/dpkg/info"
_MERGED = ("bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/")


def merged_usr() -> bool:
    """Whether /lib and its like are links into /usr, in this view."""
    try:
        return os.readlink("/lib").endswith("usr/lib")
    except OSError:
        return False


def canonical(path: str, *, merged: bool) -> str:
    """A path without its leading slash, as it is called where /usr is merged."""
    return f"usr/{path}" if merged and path.startswith(_MERGED) else path


def known(roots: Iterable[str], wanted: set[str], *, merged: bool) -> dict[str, str]:
    """The package of each of the ``wanted`` paths (escaped). A later root is right."""
    found: dict[str, str] = {}
    for root in roots:
        _add(found, _lists([f"{root}/{INFO}"]), wanted, merged=merged)
    return found


def in_stack(levels: list[str], top: str, wanted: set[str], *, merged: bool) -> dict[str, str]:
    """The same of the overlay of these directories, the uppermost first, with what ``top`` has above it.

    What a package that is gone had is told by the list that it had.
    """
    found: dict[str, str] = {}
    _add(found, _lists([f"{level}/{INFO}" for level in levels]), wanted, merged=merged)
    _add(found, _lists([f"{top}/{INFO}"]), wanted, merged=merged)
    return found


def _lists(directories: list[str]) -> list[str]:
    """Lists of dpkg's, by name, as an overlay of these directories shows them."""
    shown: dict[str, str] = {}
    hidden: set[str] = set()
    for directory in directories:
        try:
            entries = list(os.scandir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if not entry.name.endswith(".list") or entry.name in hidden or entry.name in shown:
                continue
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                shown[entry.name] = entry.path
            else:
                hidden.add(entry.name)
        if trees.is_opaque(directory):
            break
    return [shown[name] for name in sorted(shown, key=os.fsencode)]


def _add(found: dict[str, str], lists: list[str], wanted: set[str], *, merged: bool) -> None:
    for path in lists:
        name = os.path.basename(path).removesuffix(".list").partition(":")[0]
        with open(path, encoding="latin-1", newline="") as file:
            text = file.read()
        if "\\" in text or " " in text or "\t" in text:
            text = text.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
        # One with each package's name would cost more than all the rest.
        for line in wanted.intersection(_names(text, merged=merged)):
            found[line] = name


def _names(text: str, *, merged: bool) -> Iterable[str]:
    names = text[1:].removesuffix("\n").split("\n/")
    if merged:
        return [f"usr/{name}" if name.startswith(_MERGED) else name for name in names]
    return names
