"""Drift: what lies in the running root's upper, that is, what was changed outside of migrations; and what a switch
does to it.

  upper/change/drop       entries to leave out of the next upper, lines as in changes.list; `M` of a directory: just its
                          metadata is given up, and all of it where it holds nothing then
  upper/change/bring/     a tree as of an upper, of entries to put back where they are missing
  JOURNAL/drift/          drift that gives way to a migration: `drop`, and `bring/`, what it was
"""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.format import changes as changes_format
from pyinfra_overlaymig.format.octal import unescape_path
from pyinfra_overlaymig.format.paths import MIGRATIONS, RUN, STAGING, UPPER
from pyinfra_overlaymig.runner import (
    catch_up,
    compare,
    copies,
    files,
    linux,
    mounts,
    overlap,
    reach,
    spawn,
    store,
    topmost,
    trees,
)
from pyinfra_overlaymig.runner.say import Leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra_overlaymig.format.changes import Change
    from pyinfra_overlaymig.runner.compare import Comparison

_CHANGE = f"{UPPER}/change"


def generation(n: int) -> int:
    """The generation that upper ``n`` was mounted over."""
    found = files.first_line(f"{UPPER}/{n}/generation")
    return int(found) if found else store.running()


def compared(n: int, paths: Iterable[str] | None = None) -> Comparison:
    """What upper ``n`` changes in the generation that it runs over; with ``paths``, only these of its entries.

    In a child, whose mount of that generation goes with it.
    """
    made = f"{RUN}/compare.{os.getpid()}"
    files.drop(made)
    files.make_dirs(f"{made}/below", mode=0o700)
    try:
        if spawn.finish(spawn.fork(lambda: _compare(n, paths, made))):
            raise Leave(111, "what was changed by hand cannot be read", "the reason is above")
        return compare.Comparison(
            changes_format.parse_all(files.read(f"{made}/changes")),
            *(files.lines(f"{made}/{name}") for name in ("times", "unchanged", "carriers")),
        )
    finally:
        files.drop(made)


def _compare(n: int, paths: Iterable[str] | None, made: str) -> None:
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    mounts.mount_lower(f"{made}/links", f"{made}/below", store.stack(generation(n)), linux.MS_NOSUID | linux.MS_NODEV)
    found = compare.compare(f"{UPPER}/{n}/upper", f"{made}/below", paths)
    files.write_plain(f"{made}/changes", changes_format.text(found.changes))
    for name in ("times", "unchanged", "carriers"):
        files.write_lines(f"{made}/{name}", getattr(found, name))
    linux.umount(f"{made}/below", linux.MNT_DETACH)


def conflicts(stage: str) -> tuple[Change, ...]:
    """The drift that the changes of the migration in ``stage`` would meet."""
    live = catch_up.live()
    coming = changes_format.parse_all(files.read(f"{stage}/changes.list"))
    paths = overlap.meeting(f"{UPPER}/{live}/upper", coming)
    if not paths:
        return ()
    found = compared(live, paths)
    directories = {change.path for change in coming if change.kind == "d"}
    # What differs in its time alone loses nothing, nor do locks; a directory that both have made: they meet in its
    # metadata only.
    apart = {*found.times, *overlap.BOOKKEEPING}
    return tuple(
        change._replace(op="M") if change.op == "A" and change.kind == "d" and change.path in directories else change
        for change in found.changes
        if change.path not in apart
    )


def release(before: int, to: int) -> None:
    """Takes out of the clone ``to`` of upper ``before`` what is no drift and would hide a change between the
    generation of that one and the current one. Nothing else: a file that a process holds open stays the one it writes
    to.
    """
    old = generation(before)
    differences = [change for layer in {*store.stack(old)} ^ {*store.stack()} for change in changes_of(layer)]
    # The stack that it drifted from may be gone: what is left of a revert at boot.
    if not differences or not store.whole(old, aloud=False):
        return
    # What is too deep to be compared stays: going back must not depend on it.
    upper = f"{UPPER}/{before}/upper"
    # Directories of a layer that goes, which something was in by hand: they may hold nothing any more.
    made = {unescape_path(one.path) for one in differences if one.kind == "d" and one.op == "A"}
    # None that a link of somebody's leads to, out of the upper.
    left = {path for path in made if reach.fits(path) and all(files.plain_dir(f"{upper}/{one}") for one in _way(path))}
    met = {path for path in overlap.meeting(upper, differences) if reach.fits(path)}
    paths = sorted(met | left, key=os.fsencode)
    if not paths:
        return
    found = compared(before, paths)
    top = f"{UPPER}/{to}/upper"
    for path in (unescape_path(name) for name in (*found.unchanged, *found.times)):
        trees.forget_origin(f"{top}/{path}")
        files.drop(f"{top}/{path}")
    # A directory that only carries drift takes over the metadata that the new stack gives it; or goes with its own
    # generation, where it holds none.
    for name in sorted(found.carriers, key=os.fsencode, reverse=True):
        path = unescape_path(name)
        if topmost.directory(path) or not trees.remove_empty(f"{top}/{path}"):
            _take_metadata(top, path)


def changes_of(layer: str) -> list[Change]:
    """What a layer changed; of one that is being taken back, its stage says it."""
    for folder in (MIGRATIONS, STAGING):
        text = files.read(f"{folder}/{layer}/changes.list")
        if text:
            return changes_format.parse_all(text)
    return []


def _way(path: str) -> tuple[str, ...]:
    """What leads to a path, and the path."""
    return (*trees.parents(path), path)


def _take_metadata(top: str, path: str) -> None:
    """In an upper, gives a directory the metadata that the current stack gives it, if it has one there."""
    source = topmost.directory(path)
    if source and os.path.isdir(f"{top}/{path}"):
        copies.take_metadata(source, f"{top}/{path}", overlay=False)


def change(to: int) -> None:
    """Does to the clone ``to`` of an upper what upper/change says."""
    top = f"{UPPER}/{to}/upper"
    drop = [changes_format.parse(line) for line in files.lines(f"{_CHANGE}/drop")]
    if drop:
        # What was renamed, or has another name, before one of its names is given up.
        for path, found in trees.walk(top):
            if not stat.S_ISDIR(found.st_mode) and not trees.is_whiteout(found):
                trees.forget_origin(f"{top}/{path}")
    for one in drop:
        path = unescape_path(one.path)
        if _is_metadata(one):
            _take_metadata(top, path)
            # What it holds is drift still, and what the generation has there is to be seen beside it.
            trees.forget_opaque(f"{top}/{path}")
        elif all(files.plain_dir(f"{top}/{above}") for above in trees.parents(path)):
            # A directory that has become a link meanwhile would lead out of the upper.
            files.drop(f"{top}/{path}")
    # The deepest first. One that is a link by now is none.
    for path in sorted((unescape_path(one.path) for one in drop if _is_metadata(one)), key=os.fsencode, reverse=True):
        if all(files.plain_dir(f"{top}/{above}") for above in trees.parents(path)):
            trees.remove_empty(f"{top}/{path}")
    if os.path.isdir(f"{_CHANGE}/bring"):
        trees.link_tree(f"{_CHANGE}/bring", top, skip_existing=True)


def _is_metadata(one: Change) -> bool:
    """Whether just that is given up, of a directory that may hold other drift."""
    return one.op == "M" and one.kind == "d"


def drop_at_next_switch(changes: Iterable[Change]) -> None:
    """Has the next switch leave these entries out of the upper."""
    new = _new_change()
    files.write_plain(f"{new}/drop", changes_format.text(changes))
    os.rename(new, _CHANGE)


def prepare_drop(journal: str, changes: Iterable[Change]) -> None:
    """Prepares a migration to give drift up; what it was stays in its journal, for its undo."""
    files.drop(f"{journal}/drift")
    files.make_dirs(f"{journal}/drift/bring", mode=0o700)
    top = f"{UPPER}/{catch_up.live()}/upper"
    for one in changes:
        _link_with_parents(top, f"{journal}/drift/bring", unescape_path(one.path))
    # It is laid over an upper, whose top is the running root itself.
    copies.take_metadata(top, f"{journal}/drift/bring", times=True, overlay=False)
    files.write_plain(f"{journal}/drift/drop", changes_format.text(changes))


def _link_with_parents(top: str, target: str, path: str) -> None:
    for above in reversed(list(trees.parents(path))):
        if not files.there(f"{target}/{above}"):
            os.mkdir(f"{target}/{above}")
            copies.take_metadata(f"{top}/{above}", f"{target}/{above}")
    if files.plain_dir(f"{top}/{path}"):
        trees.link_tree(f"{top}/{path}", f"{target}/{path}", skip_existing=True)
    else:
        trees.link_entry(f"{top}/{path}", f"{target}/{path}", skip_existing=True)


def dropped(journal: str, what: str) -> None:
    """Has the next switch do what `prepare_drop` prepared (`drop`), or undo it (`bring`)."""
    if not files.there(f"{journal}/drift/drop"):
        return
    files.drop(_CHANGE)
    new = _new_change()
    if what == "drop":
        copies.copy_entry(f"{journal}/drift/drop", f"{new}/drop")
    else:
        trees.link_tree(f"{journal}/drift/bring", f"{new}/bring")
    os.rename(new, _CHANGE)


def _new_change() -> str:
    new = f"{_CHANGE}.new"
    files.drop(new)
    files.make_dirs(new, mode=0o700)
    return new
