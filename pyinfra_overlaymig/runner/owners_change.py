"""Gives the files of one number to another, with all that a change of owner would take away; owners.py knows whose they
are.
"""

from __future__ import annotations

import errno
import os
import stat

from pyinfra_overlaymig.runner import copies
from pyinfra_overlaymig.runner.say import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

Moves = dict[tuple[str, int], int]
"""By `u` or `g` and number, another number."""

ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_USER, _GROUP = 2, 8
"""Tags of entries in an ACL that have a number."""


def moved(found: os.stat_result, moves: Moves) -> tuple[int, int]:
    """The owner of an entry after its numbers have moved."""
    return moves.get(("u", found.st_uid), found.st_uid), moves.get(("g", found.st_gid), found.st_gid)


def change(top: str, moves: Moves, others: Collection[str]) -> None:
    """Gives all that belongs to one number to another, of ``top`` and what it holds but for the trees ``others``.

    What refuses it (immutable, read-only) is named, and in nobody's way.
    """
    refused: list[OSError] = []
    parent = os.open(os.path.dirname(top), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _change_entry(os.path.basename(top), parent, moves, refused)
    finally:
        os.close(parent)
    for directory, directories, names, here in os.fwalk(top, follow_symlinks=False):
        directories[:] = [name for name in directories if f"{directory}/{name}" not in others]
        for name in (*directories, *names):
            _change_entry(name, here, moves, refused)
    if refused:
        warn(f"{len(refused)} entries of {top} keep their owner: {refused[0].filename}: {refused[0].strerror}")


def _change_entry(name: str, here: int, moves: Moves, refused: list[OSError]) -> None:
    try:
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        _change_owner(name, here, found, moves)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EROFS, errno.EACCES):
            raise
        refused.append(type(error)(error.errno, error.strerror, name))


def _change_owner(name: str, here: int, found: os.stat_result, moves: Moves) -> None:
    """Mode, capabilities and ACLs stay: a change of owner takes set-user-id bits and capabilities away."""
    owner = moved(found, moves)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        if owner != (found.st_uid, found.st_gid):
            os.chown(name, *owner, dir_fd=here, follow_symlinks=False)
        return
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    try:
        _change_file(file, found, owner, moves)
    finally:
        os.close(file)


def _change_file(file: int, found: os.stat_result, owner: tuple[int, int], moves: Moves) -> None:
    held = copies.attributes(file)
    wanted = acls(held, moves)
    if owner != (found.st_uid, found.st_gid) or wanted != held:
        copies.set_metadata(file, owner, stat.S_IMODE(found.st_mode), wanted)


def acls(attributes: Mapping[str, bytes], moves: Moves) -> dict[str, bytes]:
    """Extended attributes, of which the ACLs have followed."""
    return {name: acl(value, moves) if name in ACLS else value for name, value in attributes.items()}


def acl(value: bytes, moves: Moves, into: set[tuple[int, int]] | None = None) -> bytes:
    """An ACL, as the kernel has it, whose named users and groups have followed; ``into``: only those that become these,
    tags and numbers.
    """
    made = bytearray(value)
    for at, tag, number in _entries(value):
        new = moves.get(("u" if tag == _USER else "g", number), number)
        if into is None or (tag, new) in into:
            made[at : at + 4] = new.to_bytes(4, "little")
    return bytes(made)


def named(value: bytes) -> set[tuple[int, int]]:
    """The named users and groups of an ACL: tags and numbers."""
    return {(tag, number) for _, tag, number in _entries(value)}


def _entries(value: bytes) -> Iterator[tuple[int, int, int]]:
    """Of each entry with a number, where that stands, its tag and the number."""
    for at in range(4, len(value) - 7, 8):
        tag = int.from_bytes(value[at : at + 2], "little")
        if tag in (_USER, _GROUP):
            yield at + 4, tag, int.from_bytes(value[at + 4 : at + 8], "little")
