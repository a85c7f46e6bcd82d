"""Snapshots of state: what a migration with `snapshot: true` found in its state paths, for a rollback with
--restore-state.

  snapshots/<id>/paths   state paths, one a line, escaped; there once the snapshot is complete
  snapshots/<id>/<k>     the k-th one's contents; nothing when it did not exist
  snapshots/<id>/accounts.<k>   whose the numbers of its owners are: u|g NAME NUMBER; older ones have none

A snapshot means something as long as its layer is in the current stack: it is taken each time the layer comes onto
it, and goes when the layer leaves it.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import DATA, ROLLBACK, SNAPSHOTS, STAGING, STATE, SYSTEM
from pyinfra_overlaymig.runner import copies, data_mounts, files, immovable, leftovers, owners, services, store, trees
from pyinfra_overlaymig.runner.say import refused, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BLOCK = 4096
_SPARE = 16 << 20
"""Bytes that stay free beside snapshots: records, and what services that start again write."""


def take(id: str, paths: Iterable[str]) -> None:
    """Takes it. What uses these paths has to stand still. A file system that can shares the blocks."""
    made = f"{SNAPSHOTS}/{id}"
    leftovers.give_up(made, f"{made}.new")
    files.make_dirs(f"{made}.new", mode=0o700)
    try:
        _copy(f"{made}.new", [path for path in paths if not _is_apart(path)])
    except BaseException:
        # Where the disk is full, services that start again need the room.
        files.drop(f"{made}.new")
        raise
    os.rename(f"{made}.new", made)


def _copy(made: str, paths: list[str]) -> None:
    names = [octal.escape_text(path) for path in paths]
    for number, (name, path) in enumerate(zip(names, paths, strict=True), start=1):
        if files.plain_dir(STATE + path):
            say(f"taking a snapshot of {name}")
            copies.copy_tree(STATE + path, f"{made}/{number}")
            files.write_plain(f"{made}/accounts.{number}", owners.text(owners.remembered(path)))
    files.write_lines(f"{made}/paths", names)


def _is_apart(path: str) -> bool:
    """Said, where a snapshot could not take the place of a state path: it holds, or is, a file system of its own."""
    place = _apart(STATE + path)
    if place:
        say(f"no snapshot is taken of {octal.escape_text(path)}: {place} is a file system of its own")
    return bool(place)


def _apart(live: str) -> str:
    """Where at ``live`` or below it another file system begins; nothing where none does."""
    if mounted := data_mounts.on(live):
        return mounted[0]
    return live if files.there(live) and os.lstat(live).st_dev != os.lstat(SYSTEM).st_dev else ""


def check_room(stack: tuple[str, ...]) -> None:
    """Leaves with 3 where the snapshots of the layers that come with ``stack`` do not fit."""
    layers = [layer for layer in stack if not store.has(layer) and store.limits(layer).snapshot]
    need = sum(space(store.plan(layer).state) for layer in layers)
    found = os.statvfs(SYSTEM)
    free = found.f_bavail * found.f_frsize
    if need and free < need + _SPARE:
        raise refused(
            f"the snapshots of {', '.join(layers)} need {need >> 10} KiB free in {DATA}, which has {free >> 10}",
            "system-migrate gc gives up what is kept; or make room on that volume",
        )


def space(paths: Iterable[str]) -> int:
    """The bytes that a snapshot of ``paths`` would take; 0 where blocks are shared."""
    if _blocks_are_shared():
        return 0
    return sum(trees.disk_usage(STATE + path) for path in paths if not _apart(STATE + path))


def _blocks_are_shared() -> bool:
    """Whether a copy shares its blocks with the original, tried with a block."""
    probes = [f"{STAGING}/.reflink.{os.getpid()}.{number}" for number in (1, 2)]
    try:
        with open(probes[0], "w+b") as there, open(probes[1], "wb") as here:
            there.write(bytes(_BLOCK))
            there.flush()
            return copies.clone(there.fileno(), here.fileno())
    finally:
        files.drop(*probes)


def sweep() -> None:
    """Drops those of layers that are not in the current stack."""
    leftovers.give_up(*(f"{SNAPSHOTS}/{id}" for id in files.names(SNAPSHOTS) if not store.has(id)))


def restore(stack: tuple[str, ...]) -> None:
    """Prepares a rollback to ``stack`` to bring state back: of each path, the snapshot that the lowest layer that
    goes has.

    Leaves with 3 when there is none.
    """
    before = store.stack()
    found = _found([layer for layer in before if layer not in stack])
    if not found:
        raise refused(
            "none of the layers that would go has a snapshot of state",
            "leave --restore-state out; a migration has one that says: snapshot: true",
        )
    for name in found:
        _refuse_mounts(name, STATE + octal.unescape_text(name))
        _refuse_immovable(STATE + octal.unescape_text(name))
    files.make_dirs(f"{ROLLBACK}/state")
    # What lies in another state path comes after that.
    found = dict(sorted(found.items()))
    for number, snapshot in enumerate(found.values(), start=1):
        place = f"{ROLLBACK}/state/{number}"
        os.mkdir(place)
        if os.path.isdir(snapshot):
            os.symlink(snapshot, f"{place}/snapshot")
        else:
            files.mark(f"{place}/gone")
    files.write_lines(f"{ROLLBACK}/state/paths", list(found))
    # A service of either generation may write to these paths.
    paths = [octal.unescape_text(name) for name in found]
    files.write_lines(f"{ROLLBACK}/services", sorted({*services.of(paths, before), *services.of(paths, stack)}))


def _refuse_mounts(name: str, live: str) -> None:
    """The whole path is renamed."""
    if place := _apart(live):
        raise refused(
            f"state path {name} is, or holds, a file system of its own ({place}): its snapshot cannot take its place in"
            " one step",
            f"unmount it, or leave --restore-state out; the snapshot lies in {SNAPSHOTS}",
        )


def _refuse_immovable(place: str) -> None:
    if files.there(place) and (why := immovable.why_at(place)):
        raise refused(f"{place} is {why}: nothing can take its place", "lift that first: chattr -i, chattr -a")


def _found(layers: list[str]) -> dict[str, str]:
    """By escaped state path, where the snapshot of the lowest of ``layers`` that has one is, or would be."""
    found: dict[str, str] = {}
    for layer in layers:
        for number, name in enumerate(files.lines(f"{SNAPSHOTS}/{layer}/paths"), start=1):
            found.setdefault(name, f"{SNAPSHOTS}/{layer}/{number}")
    return found
