"""Removes a tree, as rm -rf does: by open directories, so that nobody who may write to it can lead it astray.

Immutable entries go as well: what is removed was given up. What is mounted in it is somebody else's, and stays.
"""

from __future__ import annotations

import errno
import os
from functools import partial

from pyinfra_overlaymig.runner import immovable, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DEEP = 100
"""Directories that are held open at a time; what is deeper is moved up first."""


def remove_tree(path: str, errors: list[OSError] | None = None) -> bool:
    """As rm -rf, by open directories: nobody who may write to the tree can lead it astray by a link.

    With ``errors``, what cannot be removed is told there, and the rest goes. True when all is gone.
    """
    known = 0 if errors is None else len(errors)
    parent, name = os.path.split(path.rstrip("/"))
    try:
        here = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        _Removal(errors).remove(here, name, path)
    finally:
        os.close(here)
    return errors is None or len(errors) == known


def remove_at(directory: int, name: str, path: str) -> None:
    """As remove_tree, of an entry of an open directory; ``path`` is what it is called when it cannot be removed."""
    _Removal(None).remove(directory, name, path)


class _Removal:
    """One rm -rf. ``top``: the directory that very deep ones are moved to: neither names nor depth have a limit."""

    def __init__(self, errors: list[OSError] | None) -> None:
        self.errors = errors
        self.top = -1
        self.moved = 0

    def remove(self, parent: int, name: str, path: str) -> None:
        try:
            immovable.anyway(lambda: os.unlink(name, dir_fd=parent), parent, name)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self._remove_directory(parent, name, path, 0)
        except OSError as error:
            self._failed(error, path)

    def _remove_directory(self, parent: int, name: str, path: str, depth: int) -> None:
        try:
            here = linux.enter(parent, name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._failed(error, path)
            return
        try:
            if depth == 0:
                self.top = here
            moved = -1
            while moved != self.moved:
                moved = self.moved
                self._empty(here, path, depth)
                if depth:
                    break
        finally:
            os.close(here)
        self._try(os.rmdir, name, parent, path)

    def _empty(self, here: int, path: str, depth: int) -> None:
        with os.scandir(here) as found:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for name, is_directory in names:
            if not is_directory:
                self._try(os.unlink, name, here, f"{path}/{name}")
            elif depth < _DEEP:
                self._remove_directory(here, name, f"{path}/{name}", depth + 1)
            else:
                self.moved += 1
                new = f".deep.{self.moved}"
                immovable.anyway(partial(os.rename, name, new, src_dir_fd=here, dst_dir_fd=self.top), here, name)

    def _try(self, remove: Callable[..., None], name: str, parent: int, path: str) -> None:
        try:
            immovable.anyway(lambda: remove(name, dir_fd=parent), parent, name)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed(error, path)

    def _failed(self, error: OSError, path: str) -> None:
        if self.errors is None:
            raise type(error)(error.errno, error.strerror, path) from None
        # A directory that is not empty says nothing that the entry that stayed has not said.
        if error.errno != errno.ENOTEMPTY or not self.errors:
            self.errors.append(type(error)(error.errno, error.strerror, path))
