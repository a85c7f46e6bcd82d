"""What stays of a stage that failed, bounded: the bundle, the log, and what the script had made where that is small."""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import STAGING
from pyinfra_overlaymig.runner import files, leftovers, state, trees
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.clock import now


def discard(id: str) -> None:
    """Drops a stage altogether."""
    audit.unread(f"{STAGING}/{id}")
    state.drop_far(f"{STAGING}/{id}")
    leftovers.give_up(f"{STAGING}/{id}")


_NO_EVIDENCE = (
    *("work", "root", "lower", "lists", "state", "stack", "conflicts", "audit", "drift", "layers", "timeout"),
    *("script", "services.new", "record.new", "lent"),
)
_LARGE = 100 << 20
_ROOM, _INODES = 64 << 20, 2048
_KEPT = 3


def shrink(id: str) -> None:
    """Drops what is no evidence, and what the script had made when that is not small or the disk is nearly full.

    Services that start again may need room.
    """
    top = f"{STAGING}/{id}"
    audit.unread(top)
    state.drop_far(top)
    leftovers.give_up(*(f"{top}/{part}" for part in _NO_EVIDENCE))
    if trees.disk_usage(top) > _LARGE or _crowded():
        leftovers.give_up(f"{top}/upper", f"{top}/files")


def _crowded() -> bool:
    """Less than 64 MB or 2048 inodes are free. A file system that counts no inodes (btrfs) says it has none at all."""
    found = os.statvfs(STAGING)
    return found.f_bavail * found.f_frsize < _ROOM or (found.f_files > 0 and found.f_ffree < _INODES)


def keep(id: str, code: int | str) -> None:
    """Turns the stage into evidence: the bundle, the log and, when it is small, what the script had made.

    Of all evidence the newest three are kept.
    """
    shrink(id)
    files.write_file(f"{STAGING}/{id}/failed", f"failed_at {now()}\nexit {code}\n")
    # Not before: what it was to take the place of is back, and would be taken for its own.
    files.drop(f"{STAGING}/{id}/former")
    for old in ids()[_KEPT:]:
        drop(old)


def ids() -> list[str]:
    """The ids of failed stages, the newest first."""
    found = []
    for name in files.names(STAGING):
        try:
            found.append((os.stat(f"{STAGING}/{name}/failed").st_mtime_ns, name))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return [name for _, name in sorted(found, reverse=True) if not name.endswith(".new")]


def drop(id: str) -> None:
    """Gives evidence up. Not in place: half of it would look like a stage that was interrupted."""
    os.rename(f"{STAGING}/{id}", f"{STAGING}/{id}.new")
    leftovers.give_up(f"{STAGING}/{id}.new")
