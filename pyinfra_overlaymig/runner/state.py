"""State: what a stage did to state paths becomes the machine's after the commit.

It can be taken back (state_back.py) until the migration is marked as applied. All by renames that can be repeated;
nothing is decided from the live state twice.

The journal is a directory: staging/<id> of a migration, rollback of a rollback that restores state.

  publishing         there from the commit on: only then is there anything to take back
  state/paths        the state paths, one a line; the k-th one's:
  state/<k>/tree     the whole contents of a state path that is new to the machine; or
            snapshot -> the snapshot that takes the place of the whole path, with
            accounts whose the numbers of owners in the path were before; or
            gone     the path goes altogether, as it did not exist when the snapshot was taken; or
            upper    what changed over `lower`, the live state, as an overlay's upper directory
            dirs     directories on both sides: only their metadata is taken over
            new had  the entries to rename: into a free place, in place of what is there
            metadata of `dirs`, as it was: mode, owner, path
            attributes of `dirs`, as they were: time, extended attributes, path; older journals have none
            times    of `dirs`, as the script left them; older journals have none
            owners   the accounts of the new stack; moves: the numbers that changed with it
            owning   staged entries that follow, too: owner, extended attributes, path; owned: they have
            old      what was replaced: the `had` entries, or the whole path
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import REPLACED, STATE
from pyinfra_overlaymig.runner import (
    copies,
    directories,
    files,
    immovable,
    leftovers,
    linux,
    owners,
    state_entries,
    state_far,
    state_plan,
    topmost,
    trees,
)
from pyinfra_overlaymig.runner.directories import stat_at
from pyinfra_overlaymig.runner.say import warn


class Part(NamedTuple):
    """One state path of a journal: its directory there, and itself (absolute)."""

    directory: str
    path: str

    @property
    def live(self) -> str:
        return STATE + self.path

    def has(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def tree(self, name: str) -> str:
        """The same of `upper` and `old`, which may be elsewhere: state_far.py."""
        place = self.has(name)
        return os.readlink(place) if os.path.islink(place) else place


def each(journal: str) -> list[Part]:
    """The state paths of a journal."""
    paths = map(octal.unescape_text, files.lines(f"{journal}/state/paths"))
    return [Part(f"{journal}/state/{number}", path) for number, path in enumerate(paths, start=1)]


def plan(journal: str) -> None:
    """Before the commit, writes down what publishing will do."""
    for part in each(journal):
        if os.path.islink(part.has("lower")):
            state_plan.write(part.directory, part.live)
        elif files.plain_dir(part.has("tree")):
            state_plan.refuse_immovable(_nearest(part.live))


def _nearest(path: str) -> str:
    """The nearest directory above ``path`` that is there."""
    above = os.path.dirname(path)
    return above if files.plain_dir(above) else _nearest(above)


def publish(journal: str) -> None:
    """Makes it the machine's. What is gone from the journal was published before."""
    for part in each(journal):
        if files.plain_dir(part.has("tree")):
            owners.remember(part.path, owners.coming())
            into_place(part.has("tree"), part.path)
        elif os.path.islink(part.has("snapshot")):
            _publish_snapshot(part)
        elif files.there(part.has("gone")):
            if files.there(part.live):
                os.rename(part.live, part.has("old"))
        elif files.there(part.has("dirs")):
            _publish_changes(part)


def into_place(source: str, path: str) -> None:
    """A whole path; directories above it are as the stack has them at its place."""
    with directories.below(STATE) as held:
        relative = path.lstrip("/")
        for above in reversed(list(trees.parents(relative))):
            directory, name = held.of(above)
            if stat_at(directory, name) is None:
                os.mkdir(name, 0o700, dir_fd=directory)
                _take_metadata_of_place(above, held.open(above))
        directory, name = held.of(relative)
        os.rename(source, name, dst_dir_fd=directory)


def _take_metadata_of_place(path: str, target: int) -> None:
    """A directory above a state path; where links lead elsewhere, what lets nobody through there does not here."""
    place = topmost.meant(path)
    shown = topmost.directory(place)
    if not shown:
        os.chmod(target, 0o755)
        return
    copies.take_metadata(shown, target, overlay=False)
    if place != path and topmost.is_closed(place):
        os.chmod(target, stat.S_IMODE(os.stat(target).st_mode) & ~stat.S_IRWXO)


def _publish_snapshot(part: Part) -> None:
    snapshot = os.readlink(part.has("snapshot"))
    if not files.plain_dir(snapshot):
        return
    if files.there(part.live) and not files.there(part.has("old")):
        files.write_plain(part.has("accounts"), owners.text(owners.remembered(part.path)))
        os.rename(part.live, part.has("old"))
    if known := owners.read(accounts_of(snapshot)):
        owners.remember(part.path, known)
    into_place(snapshot, part.path)


def accounts_of(snapshot: str) -> str:
    """Where a snapshot has whose its owners' numbers are."""
    directory, number = os.path.split(snapshot)
    return f"{directory}/accounts.{number}"


def _publish_changes(part: Part) -> None:
    from pyinfra_overlaymig.runner import state_owners

    state_far.check(part.directory)
    upper, old = part.tree("upper"), part.tree("old")
    moves = state_owners.follow(part)
    with directories.below(part.live) as held:
        if moves:
            state_owners.own(part, held, moves)
        for path in names(part.has("dirs")):
            _take_metadata(trees.below(upper, path), held.open(path), f"{part.live}/{path}")
        for name in ("had", "new"):
            for path in names(part.has(name)):
                staged = trees.lstat(f"{upper}/{path}")
                if staged is not None:
                    directory, last = held.of(path)
                    if name == "had":
                        state_entries.set_aside(directory, last, f"{old}/{path}")
                    state_entries.put(f"{upper}/{path}", staged, directory, last)
        for line in files.lines(part.has("times")):
            time, _, name = line.partition(" ")
            copies.set_time(held.open(octal.unescape_path(name)[2:]), int(time))


def _take_metadata(staged: str, here: int, place: str) -> None:
    """Of a directory that is on both sides. That nothing was to be changed in an immovable one was seen before the
    commit; its owner may have another number now.
    """
    try:
        copies.take_metadata(staged, here, overlay=False)
    except PermissionError:
        if not (why := immovable.why(here)):
            raise
        warn(f"{place} keeps its owner: it is {why}")


def names(file: str) -> list[str]:
    """The entries of a list, the top as nothing."""
    return [octal.unescape_path(line)[2:] for line in files.lines(file)]


def take_back(journal: str) -> None:
    """Undoes what was published, if anything was."""
    from pyinfra_overlaymig.runner import state_back

    state_back.take_back(journal)


def keep(journal: str, name: str) -> None:
    """What was replaced stays under replaced/``name`` until the next change of the machine."""
    drop_replaced()
    if not files.there(f"{journal}/state/paths"):
        return
    files.make_dirs(REPLACED, mode=0o700)
    drop_far(journal)
    os.rename(f"{journal}/state", f"{REPLACED}/{name}")


def drop_far(journal: str) -> None:
    """What was prepared on other file systems goes."""
    for part in each(journal):
        state_far.drop(part.directory)


def sync(journal: str) -> None:
    """What was published is on the disk."""
    linux.syncfs(STATE)
    for part in each(journal):
        state_far.sync(part.directory)


def drop_replaced() -> None:
    """Gives up what the change before the last one had replaced. What cannot be removed stays, and is tried again."""
    leftovers.give_up(REPLACED)
