"""Hard links in a state path: an overlay copies up one name of a file, and the others keep the old contents.

Whether a script wrote to the file, or put another one in place of one name, cannot be told from the upper: where names
are left over it is refused, by name.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from pyinfra_overlaymig.runner import contents, copies, files, trees
from pyinfra_overlaymig.runner.say import Leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def keep(upper: str, live: str, both: Iterable[str]) -> bool:
    """Makes the upper say of all names of a file what it says of one, or leaves with 9; whether there are such files.

    ``both``: paths that are on both sides.
    """
    touched = {
        (was.st_dev, was.st_ino)
        for path in both
        if stat.S_ISREG((was := os.lstat(f"{live}/{path}")).st_mode)
        and was.st_nlink > 1
        and _is_file(f"{upper}/{path}")
    }
    if not touched:
        return _keep_moved(upper, live)
    names: dict[tuple[int, int], list[str]] = {}
    for path, at in trees.walk(live):
        if (at.st_dev, at.st_ino) in touched:
            names.setdefault((at.st_dev, at.st_ino), []).append(path)
    for group in names.values():
        _keep_group(upper, live, sorted(group, key=os.fsencode))
    _keep_moved(upper, live)
    return True


def _keep_moved(upper: str, live: str) -> bool:
    """A name that was moved, alone or with its directory, is a copy in an overlay: it becomes one file again with the
    names that are left of it. One that was changed as well cannot be told from another file.
    """
    gone = _gone(upper, live)
    if not gone:
        return False
    new = [
        (path, at)
        for path, at in trees.walk(upper)
        if stat.S_ISREG(at.st_mode) and trees.lstat(f"{live}/{path}") is None
    ]
    moved = {key: made for key, old in gone.items() for made, at in new if _is_copy(f"{upper}/{made}", at, old)}
    for path, at in trees.walk(live) if moved else ():
        made = moved.get((at.st_dev, at.st_ino))
        if made and not _is_touched(upper, path):
            _link(f"{upper}/{made}", upper, live, path)
    return bool(moved)


def _gone(upper: str, live: str) -> dict[tuple[int, int], str]:
    """Files that have lost some of their names: by device and inode, one of these, absolute."""
    found: dict[tuple[int, int], str] = {}
    for path, at in trees.walk(upper):
        place = f"{live}/{path}"
        hidden = trees.is_whiteout(at) or (stat.S_ISDIR(at.st_mode) and trees.is_opaque(f"{upper}/{path}"))
        was = trees.lstat(place) if hidden else None
        if was is None:
            continue
        below = trees.walk(place) if stat.S_ISDIR(was.st_mode) else ()
        for name, one in (("", was), *below):
            if stat.S_ISREG(one.st_mode) and one.st_nlink > 1:
                found[one.st_dev, one.st_ino] = trees.below(place, name)
    return found


def _is_copy(made: str, at: os.stat_result, old: str) -> bool:
    was = os.lstat(old)
    return (at.st_size, at.st_mtime_ns) == (was.st_size, was.st_mtime_ns) and _alike(made, old, times=True)


def _link(made: str, upper: str, live: str, path: str) -> None:
    """Another name for ``made``, in directories that are as they were, as if that had been copied up."""
    for above in reversed(list(trees.parents(path))):
        if not files.there(f"{upper}/{above}"):
            with _times_kept(f"{upper}/{above}"):
                os.mkdir(f"{upper}/{above}")
            copies.take_metadata(f"{live}/{above}", f"{upper}/{above}", times=True)
    with _times_kept(f"{upper}/{path}"):
        os.link(made, f"{upper}/{path}")


@contextmanager
def _times_kept(path: str) -> Iterator[None]:
    """Of the directory that ``path`` lies in."""
    above = os.path.dirname(path)
    was = os.stat(above)
    yield
    os.utime(above, ns=(was.st_atime_ns, was.st_mtime_ns))


def _keep_group(upper: str, live: str, group: list[str]) -> None:
    copied = [path for path in group if _is_file(f"{upper}/{path}")]
    left = [path for path in group if not _is_touched(upper, path)]
    if not left:
        _link_again(upper, copied)
        return
    for path in copied:
        if not _alike(f"{upper}/{path}", f"{live}/{path}", times=True):
            raise Leave(
                9, f"{path} and {left[0]} are names of one file in {live}, and the script changed only the first",
                "have it link or remove the other one too: ln -f ONE OTHER",
            )  # fmt: skip
        # Opened for writing, and left as it was.
        os.unlink(f"{upper}/{path}")


def _is_file(place: str) -> bool:
    found = trees.lstat(place)
    return found is not None and stat.S_ISREG(found.st_mode)


def _is_touched(upper: str, path: str) -> bool:
    """Whether the upper says anything about a path: there, or above it."""
    if trees.lstat(f"{upper}/{path}") is not None:
        return True
    for above in trees.parents(path):
        found = trees.lstat(f"{upper}/{above}")
        if found is not None:
            return not stat.S_ISDIR(found.st_mode) or trees.is_opaque(f"{upper}/{above}")
    return False


def _link_again(upper: str, copied: list[str]) -> None:
    """All names were copied up, as by chown -R: those that are still the same are names of one file again."""
    for path in copied[1:]:
        first = f"{upper}/{copied[0]}"
        if _alike(first, f"{upper}/{path}", times=False) and not os.path.samefile(first, f"{upper}/{path}"):
            os.unlink(f"{upper}/{path}")
            os.link(first, f"{upper}/{path}")


def _alike(one: str, other: str, *, times: bool) -> bool:
    is_now, was = os.lstat(one), os.lstat(other)
    if (is_now.st_mode, is_now.st_uid, is_now.st_gid) != (was.st_mode, was.st_uid, was.st_gid):
        return False
    if times and is_now.st_mtime_ns != was.st_mtime_ns:
        return False
    if copies.attributes(one, overlay=False) != copies.attributes(other, overlay=False):
        return False
    return is_now.st_size == was.st_size and contents.alike(one, other)
