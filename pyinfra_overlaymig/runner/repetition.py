"""Does to a clone of an upper, through its mount, what catch_up.py has planned."""

from __future__ import annotations

import errno
import os
import stat

from pyinfra_overlaymig.runner import copies, reach, trees
from pyinfra_overlaymig.runner.catch_up import ANY_DIRECTORY, WHITEOUT, is_directory, value_of
from pyinfra_overlaymig.runner.directories import stat_at
from pyinfra_overlaymig.runner.removal import remove_at
from pyinfra_overlaymig.runner.say import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyinfra_overlaymig.runner.catch_up import Listing, Repeat
    from pyinfra_overlaymig.runner.directories import Directories

_STRAY = ".system-migrate."
_ORIGIN = f"{copies.OVERLAY}origin"


def _is_copied_up(directory: str) -> bool:
    """Whether an overlay brought a directory into its upper; one that was made there has no original."""
    return _ORIGIN in os.listxattr(directory, follow_symlinks=False)


class Repetition:
    """Names come and go through the mount, as an upper in use is not to be touched.

    But for new links of files: they get a name that nobody ever looked up, and their own by a rename through the mount.
    """

    def __init__(self, source: str, upper: Directories, root: Directories, seen: Listing, now: Listing) -> None:
        self.source = source
        self.upper = upper
        self.root = root
        self.seen = seen
        self.now = now
        # Not the process's number: that comes again, also after a kill, and what it left is there until `_tidy`.
        self.stray = f"{_STRAY}{os.urandom(8).hex()}"
        self.links = 0

    def do(self, what: Repeat) -> None:
        for path in what.gone:
            self._unless_moved(self._remove, path)
        for path in what.cleared:
            self._unless_moved(self._clear, path)
        for path in what.made:
            self._unless_moved(self._make, path)
        for directory in sorted({os.path.dirname(path) for path in what.made}):
            self._unless_moved(self._tidy, directory)

    def _unless_moved(self, step: Callable[[str], None], path: str) -> None:
        """Programs that do not stand still go on making and removing; what has become of a directory there is newer."""
        try:
            step(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            if path in self.now and trees.lstat(f"{self.source}/{path}") is not None:
                warn(f"drift of the moment of the switch is not carried over: /{path}")

    def _have(self, path: str) -> str:
        """What the clone has at ``path`` now, as a listing says it."""
        try:
            directory, name = self.upper.of(path)
        except FileNotFoundError:
            return ""
        return value_of(f"/proc/self/fd/{directory}/{name}")

    def _remove(self, path: str) -> None:
        directory, name = self.root.of(path)
        if not is_directory(self.seen[path]):
            if self._have(path) == self.seen[path]:
                os.unlink(name, dir_fd=directory)
            return
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            # A file in its place is newer; where nothing is, it was removed by an attempt that was killed.
            if error.errno not in (errno.ENOTEMPTY, errno.ENOTDIR, errno.ENOENT):
                raise

    def _clear(self, path: str) -> None:
        directory, name = self.root.of(path)
        remove_at(directory, name, path)

    def _make(self, path: str) -> None:
        value = self.now[path]
        have = self._have(path)
        if is_directory(value):
            self._make_directory(path, have)
        elif have == value or self._is_newer(path, have):
            return
        elif value == WHITEOUT:
            self._clear(path)
        else:
            self._link(path)

    def _is_newer(self, path: str, have: str) -> bool:
        """Whether ``to`` has something that neither its clone nor a removal of ours left there."""
        was = self.seen.get(path, "")
        if have == WHITEOUT:
            return was not in ("", WHITEOUT) and not is_directory(was)
        return have not in ("", was) and not (is_directory(have) and self._is_half_removed(path))

    def _is_half_removed(self, path: str) -> bool:
        """Whether a directory of the upper is one of the layers, and has nothing new: what a removal leaves of it that
        is killed.
        """
        top = f"/proc/self/fd/{self.upper.open(path)}"
        return _is_copied_up(f"{top}/.") and all(
            _is_copied_up(f"{top}/{name}") if stat.S_ISDIR(found.st_mode) else trees.is_whiteout(found)
            for name, found in trees.walk(top)
        )

    def _make_directory(self, path: str, have: str) -> None:
        if have and not is_directory(have) and have != WHITEOUT:
            return
        directory, name = self.root.of(path)
        found = stat_at(directory, name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            self._clear(path)
            os.mkdir(name, dir_fd=directory)
        here = self.root.open(path)
        # Also where nothing differs: it brings the directory into the upper.
        os.chmod(here, os.stat(here).st_mode & 0o7777)
        with reach.directory(f"{self.source}/{path}") as place:
            copies.take_metadata(place, here, times=True, overlay=False)

    def _link(self, path: str) -> None:
        above = os.path.dirname(path)
        if not is_directory(self._have(above) if above else ANY_DIRECTORY):
            here = self.root.open(above)
            os.chmod(here, os.stat(here).st_mode & 0o7777)
        self.links += 1
        link = f"{self.stray}.{self.links}"
        with reach.entry(f"{self.source}/{path}") as place:
            self._forget_origin(place)
            trees.link_entry(place, f"/proc/self/fd/{self.upper.open(above)}/{link}")
        directory, name = self.root.of(path)
        found = stat_at(directory, name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._clear(path)
        os.rename(link, name, src_dir_fd=directory, dst_dir_fd=directory)

    def _forget_origin(self, place: str) -> None:
        """A file that was copied up names its original: an overlay would take both for one inode.

        The root before shares the attribute: until it forgets what it looked up, names of one file have two numbers
        there. It stands still, and has to go; data and attributes are the same by all names.
        """
        try:
            os.removexattr(place, _ORIGIN, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise

    def _tidy(self, directory: str) -> None:
        """A kill may have left a link without its own name."""
        for name in os.listdir(self.upper.open(directory)):
            if name.startswith(_STRAY):
                os.unlink(name, dir_fd=self.root.open(directory))
