"""A state path on a file system of its own, into which nothing can be renamed from /data/system: what comes to it is
copied there before the commit, and what it replaces is kept there, in a directory of the runner's that goes at the end.

  state/<k>/far      -> that directory; upper and old of the journal lead into it, `staged` is what was copied, and
            far.time what the top's time was
"""

from __future__ import annotations

import errno
import os
import stat

from pyinfra_overlaymig.runner import copies, files, leftovers, linux, trees
from pyinfra_overlaymig.runner.say import Leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = ".system-migrate"


def bring(directory: str, live: str, dirs: list[str], entries: Iterable[str]) -> None:
    """Makes it so of the part ``directory`` of a journal: of its upper, ``dirs`` and ``entries`` are what counts."""
    made, upper = f"{live}/{NAME}", f"{directory}/upper"
    _refuse_others(made)
    moment = os.stat(live).st_mtime_ns
    files.write_plain(f"{directory}/far.time", f"{moment}\n")
    # First, so that what is half-made is found again.
    os.symlink(made, f"{directory}/far")
    files.drop(made)
    os.mkdir(made, 0o700)
    copy = copies.Copy()
    for path in dirs:
        os.mkdir(trees.below(f"{made}/upper", path))
    for path in entries:
        copy.tree(f"{upper}/{path}", f"{made}/upper/{path}")
    for path in reversed(dirs):
        copies.take_metadata(trees.below(upper, path), trees.below(f"{made}/upper", path), times=True)
    os.mkdir(f"{made}/old", 0o700)
    os.utime(live, ns=(moment, moment))
    os.rename(upper, f"{directory}/staged")
    os.symlink(f"{made}/upper", upper)
    os.symlink(f"{made}/old", f"{directory}/old")
    linux.syncfs(live)


def _refuse_others(made: str) -> None:
    found = trees.lstat(made)
    if found is None:
        return
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and {"upper", "old"}.issuperset(files.names(made))
    if not ours:
        raise Leave(9, f"{made} is in the way: state is prepared there", "give it another name")


def check(directory: str) -> None:
    """Fails where what was prepared there is not to be seen, as at a boot without that file system."""
    if os.path.islink(f"{directory}/far") and not files.there(made := os.readlink(f"{directory}/far")):
        raise OSError(errno.ENXIO, "what was prepared there is not to be seen: is it mounted?", os.path.dirname(made))


def drop(directory: str) -> None:
    """What is left of it there goes; of a part of a journal that has none, nothing."""
    if not os.path.islink(f"{directory}/far"):
        return
    made = os.readlink(f"{directory}/far")
    live = os.path.dirname(made)
    if files.there(made):
        whole = os.path.islink(f"{directory}/upper")
        moment = os.stat(live).st_mtime_ns if whole else int(files.first_line(f"{directory}/far.time"))
        leftovers.give_up(made)
        os.utime(live, ns=(moment, moment))
    files.drop(f"{directory}/far")


def sync(directory: str) -> None:
    """What was published there is on the disk."""
    if os.path.islink(f"{directory}/far"):
        linux.syncfs(os.path.dirname(os.readlink(f"{directory}/far")))
