"""Where state paths lie in a root: at their names, or where links there lead; and which of them can lie nowhere.

A place is a path as that root sees it. It may be another one in every generation: state follows the name.
"""

from __future__ import annotations

import errno
import os

from pyinfra_overlaymig.format import octal, rules
from pyinfra_overlaymig.format.paths import STATE, is_below, is_nested
from pyinfra_overlaymig.runner import files, rooted, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

Trouble = tuple[str, str]
"""What is wrong, and what to do."""


def outermost(paths: Iterable[str]) -> list[str]:
    """Those that lie in none of the others: what lies in a state path is its contents."""
    found: list[str] = []
    for path in sorted(paths):
        # Whatever holds it sorts before it.
        if not any(is_below(path, other) for other in found):
            found.append(path)
    return sorted(found, key=os.fsencode)


def place(root: str, path: str) -> str:
    """Where in ``root`` the contents of a state path are seen: at ``path``, or at what links mean there."""
    return rooted.resolve(root, path)[len(root) :]


def shown(root: str, path: str) -> str:
    """The same; a circle of links leads nowhere else."""
    try:
        return place(root, path)
    except OSError:
        return path


def trouble(root: str, path: str) -> Trouble | None:
    """Why what ``root`` has at ``path`` can be no directory of state; None where it can."""
    name = octal.escape_text(path)
    try:
        found = place(root, path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return f"state path {name} leads in a circle of links", "correct the links, or name what they are to lead to"
    if found == STATE + path:
        return None
    if found != path and (why := rules.state_trouble(found)):
        return f"state path {name} is {octal.escape_text(found)}, where links lead: {why[0]}", why[1]
    for one in (found[1:], *trees.parents(found[1:])):
        if files.there(f"{root}/{one}") and not files.plain_dir(f"{root}/{one}"):
            return f"state path {name}: /{octal.escape_text(one)} is no directory", "name the directory that it lies in"
    return _trouble_of_state(path, name)


def _trouble_of_state(path: str, name: str) -> Trouble | None:
    """What is in the way in /data/state: who may write to what holds a path may put anything there."""
    for one in (path[1:], *trees.parents(path[1:])):
        if files.there(f"{STATE}/{one}") and not files.plain_dir(f"{STATE}/{one}"):
            return (
                f"state path {name}: {STATE}/{octal.escape_text(one)} is no directory",
                "move it away, or put the directory there that it stands for",
            )
    return None


def troubles(root: str, paths: Iterable[str], declared: Iterable[str]) -> Trouble | None:
    """The first trouble of any of ``paths``; of those ``declared`` also, that links lead one into another's place."""
    found: dict[str, str] = {}
    for path in paths:
        if why := trouble(root, path):
            return why
        found[path] = place(root, path)
    for path in declared:
        if path not in found:
            # It lies in another one.
            if why := _trouble_of_state(path, octal.escape_text(path)):
                return why
            continue
        for other, there in found.items():
            if path != other and (why := _meeting((path, found[path]), (other, there))):
                return why
    return None


def _meeting(*both: tuple[str, str]) -> Trouble | None:
    """Of two state paths with their places: where only links lead one into the other, each would hide it."""
    (path, here), (other, there) = both
    if is_nested(path, other) or not is_nested(here, there):
        return None
    linked, at, plain = (path, here, other) if path != here else (other, there, path)
    name = octal.escape_text(plain)
    return (
        f"state path {octal.escape_text(linked)} is {octal.escape_text(at)}, where links lead: it meets {name},"
        " which is state as well",
        "name what is one directory once",
    )
