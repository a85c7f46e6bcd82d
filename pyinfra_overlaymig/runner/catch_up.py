"""Uppers of running roots: which is live, its clone for the next root, and what happened to it while that was made.

The clone's files are hard links: what a process that has one open still writes shows in the new root. What came after
the clone is linked into it too, not copied, for the same reason.
"""

from __future__ import annotations

import os
import stat
from binascii import crc32
from typing import NamedTuple

from pyinfra_overlaymig.format.paths import RUN, UPPER
from pyinfra_overlaymig.runner import copies, files, reach, store, trees
from pyinfra_overlaymig.runner.directories import below

_REMEMBERED = f"{RUN}/drift"
_LIVE = f"{UPPER}/live"
WHITEOUT = "w"
ANY_DIRECTORY = "-"
"""A directory in a listing of an older runner."""

Listing = dict[str, str]
"""What an upper holds: of a path an inode, `w` for a whiteout, `d:MODE:UID:GID:ATTRIBUTES[:o]`: directory, opaque."""


class Repeat(NamedTuple):
    """What to do again. ``gone``: the deepest first; ``cleared``: directories that hide the stack now.

    ``made``: parents first, and directories of which only the metadata changed.
    """

    gone: list[str]
    cleared: list[str]
    made: list[str]


def live() -> int:
    """The number of the running root's upper, 0 when there is none yet."""
    try:
        return int(os.path.basename(os.readlink(_LIVE)))
    except FileNotFoundError:
        return 0


def prepare_live(n: int) -> None:
    """What `set_live` needs room for: after a pivot, nothing may be in its way."""
    files.drop(f"{_LIVE}.new")
    os.symlink(str(n), f"{_LIVE}.new")


def set_live(n: int) -> None:
    """From now on ``n`` is the running root's."""
    if live() == n:
        return
    if not os.path.islink(f"{_LIVE}.new") or os.readlink(f"{_LIVE}.new") != str(n):
        prepare_live(n)
    os.rename(f"{_LIVE}.new", _LIVE)


def clone(before: int, to: int) -> None:
    """Upper ``to`` gets the drift of ``before``; directories are new: no upperdir is ever shared by two mounts."""
    new = f"{UPPER}/{to}.new"
    files.drop(new, f"{UPPER}/{to}")
    files.make_dirs(f"{new}/work", mode=0o700)
    source = f"{UPPER}/{before}/upper"
    if files.plain_dir(source):
        trees.link_tree(source, f"{new}/upper")
    else:
        os.mkdir(f"{new}/upper")
        copies.take_metadata("/", f"{new}/upper", overlay=False)
    files.write_file(f"{new}/generation", f"{store.current()}\n")
    os.rename(new, f"{UPPER}/{to}")


def listing(n: int) -> Listing:
    """What upper ``n`` holds."""
    found: Listing = {}
    top = f"{UPPER}/{n}/upper"
    waiting = [""] if files.plain_dir(top) else []
    while waiting:
        here = waiting.pop()
        with reach.directory(f"{top}/{here}") as place:
            for entry in trees.entries(place):
                path = here + entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory:
                    waiting.append(f"{path}/")
                if is_directory or not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                    value = value_of(entry.path)
                else:
                    value = str(entry.inode())
                if value:
                    found[path] = value
    return found


def value_of(path: str) -> str:
    """What a listing says of ``path``, empty when nothing is there."""
    found = trees.lstat(path)
    if found is None:
        return ""
    if stat.S_ISDIR(found.st_mode):
        held = copies.attributes(path)
        opaque = ":o" if held.get(trees.OPAQUE) == b"y" else ""
        kept = sorted((name, value) for name, value in held.items() if not name.startswith(copies.OVERLAY))
        more = f":{crc32(repr(kept).encode()):x}" if kept else ":-"
        return f"d:{found.st_mode & 0o7777:o}:{found.st_uid}:{found.st_gid}{more}{opaque}"
    return WHITEOUT if trees.is_whiteout(found) else str(found.st_ino)


def remember(seen: Listing) -> None:
    """Keeps a listing for this boot: a switch that is killed after its pivot goes on with it."""
    data = b"".join(b"%s ./%s\0" % (value.encode(), os.fsencode(path)) for path, value in seen.items())
    with open(f"{_REMEMBERED}.new", "wb") as file:
        file.write(data)
    os.rename(f"{_REMEMBERED}.new", _REMEMBERED)


def remembered() -> Listing:
    """The listing that was kept; also one of the runner before, which was a shell script."""
    try:
        with open(_REMEMBERED, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    pairs = (os.fsdecode(record).split(" ./", 1) for record in data.split(b"\0") if record)
    return {path: value for value, path in pairs}


def is_directory(value: str) -> bool:
    """Whether a listing says so."""
    return value == ANY_DIRECTORY or value.startswith("d:")


def _is_opaque(value: str) -> bool:
    return value.startswith("d:") and value.endswith(":o")


def _alike(one: str, other: str) -> bool:
    return one == other or (ANY_DIRECTORY in (one, other) and is_directory(one) and is_directory(other))


def plan(seen: Listing, now: Listing) -> Repeat:
    """What to do again in a clone, of which ``seen`` was listed, so that it is as what it was made of is ``now``."""
    cleared = {path for path, value in now.items() if _is_opaque(value) and not _is_opaque(seen.get(path, ""))}
    cleared -= {path for path in cleared if cleared.intersection(trees.parents(path))}
    known = {
        path: value
        for path, value in seen.items()
        if not cleared or (path not in cleared and cleared.isdisjoint(trees.parents(path)))
    }
    gone = [
        path
        for path, value in known.items()
        if path not in now or (not _alike(value, now[path]) and is_directory(value) != is_directory(now[path]))
    ]
    made = [path for path, value in now.items() if path not in known or not _alike(known[path], value)]
    gone.sort(key=os.fsencode, reverse=True)
    made.sort(key=os.fsencode)
    return Repeat(gone, sorted(cleared), made)


def repeat(before: int, to: int, seen: Listing, root: str) -> None:
    """Repeats in ``root``, the mount over upper ``to``, what happened to upper ``before`` since it was cloned.

    ``seen`` is what the clone held. What has changed since in ``to`` too stays: it is newer. Can be done again.
    """
    now = listing(before)
    if not now and not seen:
        return
    what = plan(seen, now)
    if not any(what):
        return
    from pyinfra_overlaymig.runner.repetition import Repetition

    with below(f"{UPPER}/{to}/upper") as upper, below(root) as held:
        Repetition(f"{UPPER}/{before}/upper", upper, held, seen, now).do(what)
    # From here on only what comes after this is to be repeated: what is deleted in the new root must not come back.
    remember(now)
