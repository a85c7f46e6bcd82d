"""Takes back what state.py published: from the same journal, by renames that can be repeated."""

from __future__ import annotations

import os
import stat
from functools import partial

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import STATE
from pyinfra_overlaymig.runner import copies, directories, files, immovable, owners, removal, state_far, trees
from pyinfra_overlaymig.runner.directories import stat_at
from pyinfra_overlaymig.runner.owners_change import Moves, acls
from pyinfra_overlaymig.runner.state import accounts_of, each, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.directories import Directories
    from pyinfra_overlaymig.runner.state import Part


def take_back(journal: str) -> None:
    """Undoes what was published, if anything was."""
    if not files.there(f"{journal}/publishing"):
        return
    # What lies in another one was published after it.
    for part in reversed(each(journal)):
        _restore(part)
    from pyinfra_overlaymig.runner import services

    services.forget(journal)
    files.drop(f"{journal}/publishing")


def _restore(part: Part) -> None:
    if os.path.islink(part.has("snapshot")) or files.there(part.has("gone")):
        _restore_whole(part)
    elif not os.path.islink(part.has("lower")):
        # New with this migration: back to the stage. Where the tree is still there, it was not published.
        if not files.plain_dir(part.has("tree")) and files.plain_dir(part.live):
            immovable.rename(part.live, part.has("tree"))
            prune(part.live)
    elif files.there(part.has("dirs")):
        _restore_changes(part)


def _restore_whole(part: Part) -> None:
    if os.path.islink(part.has("snapshot")):
        snapshot = os.readlink(part.has("snapshot"))
        if not files.plain_dir(snapshot) and files.plain_dir(part.live):
            # Its owners may have followed their names meanwhile.
            files.write_plain(accounts_of(snapshot), owners.text(owners.remembered(part.path)))
            immovable.rename(part.live, snapshot)
    if files.there(part.has("old")):
        # Where the path was gone, what ran meanwhile may have begun it anew.
        files.drop(part.live)
        if known := owners.read(part.has("accounts")):
            owners.remember(part.path, known)
        immovable.rename(part.has("old"), part.live)


def _restore_changes(part: Part) -> None:
    """Entries that were new go, what was replaced returns, metadata is as it was; of owners, by name: their numbers are
    those of the stack that goes, and follow the other one later.
    """
    state_far.check(part.directory)
    moves: Moves = {}
    if files.there(part.has("moves")):
        owners.follow(part.path, owners.read(part.has("owners")))
        moves = owners.read_moves(part.has("moves"))
    if not files.plain_dir(part.live):
        files.drop(part.live)
        files.make_dirs(part.live)
    with directories.below(part.live) as held:
        for path in names(part.has("new")):
            _remove(held, path)
        for path in names(part.has("had")):
            _bring_back(held, path, part.tree("old"))
        known = dict(_attributes(part.has("attributes")))
        metadata = [line.split(" ", 2) for line in files.lines(part.has("metadata"))]
        for mode, owner, name in metadata:
            path = octal.unescape_path(name)[2:]
            uid, _, gid = owner.partition(":")
            here = held.open(path, make=True)
            found = known[path][1] if path in known else copies.attributes(here)
            numbers = moves.get(("u", int(uid)), int(uid)), moves.get(("g", int(gid)), int(gid))
            so = partial(copies.set_metadata, here, numbers, int(mode, 8), acls(found, moves), keep=copies.OVERLAY)
            immovable.anyway(so, here)
        for path, (time, _) in known.items():
            here = held.open(path, make=True)
            immovable.anyway(partial(copies.set_time, here, time), here)


def _attributes(file: str) -> list[tuple[str, tuple[int, dict[str, bytes]]]]:
    found = []
    for line in files.lines(file):
        time, held, name = line.split(" ", 2)
        found.append((octal.unescape_path(name)[2:], (int(time), copies.attributes_of(held))))
    return found


def _remove(held: Directories, path: str) -> None:
    try:
        directory, name = held.of(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    removal.remove_at(directory, name, f"{held.top}/{path}")


def _bring_back(held: Directories, path: str, old: str) -> None:
    was = trees.lstat(f"{old}/{path}")
    if was is None:
        return
    # What ran on the new state may have moved or removed the directory.
    directory, name = held.of(path, make=True)
    found = stat_at(directory, name)
    if found is not None and (stat.S_ISDIR(was.st_mode) or stat.S_ISDIR(found.st_mode)):
        removal.remove_at(directory, name, f"{held.top}/{path}")
    elif found is not None and (found.st_dev, found.st_ino) == (was.st_dev, was.st_ino):
        # Set aside and not yet replaced: rename(2) does nothing with two names of one file.
        files.drop(f"{old}/{path}")
        return
    immovable.anyway(lambda: os.rename(f"{old}/{path}", name, dst_dir_fd=directory), directory, name)


def prune(live: str) -> None:
    """Removes the directories above a path, below /data/state, as far as they are empty."""
    above = os.path.dirname(live)
    while above.startswith(f"{STATE}/") and trees.remove_empty(above):
        above = os.path.dirname(above)
