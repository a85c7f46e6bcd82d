"""Entries of state that give way to others, in directories that are held open: state.py says which ones."""

from __future__ import annotations

import errno
import os
import stat

from pyinfra_overlaymig.runner import files, trees
from pyinfra_overlaymig.runner.directories import stat_at


def set_aside(directory: int, name: str, old: str) -> None:
    """Keeps what is about to be replaced, once.

    A file stays in its place until the rename over it, so that a reader sees the old one or the new one; a directory
    cannot be renamed over. What it is, link(2) tells soonest: services stand still meanwhile.
    """
    for _ in range(2):
        try:
            os.link(name, old, src_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            # Once is enough: what is there now may be what came in its place.
            return
        except FileNotFoundError:
            if stat_at(directory, name) is None:
                return
            files.make_dirs(os.path.dirname(old), mode=0o700)
        except OSError as error:
            _move_aside(directory, name, old, error)
            return
        else:
            return


def _move_aside(directory: int, name: str, old: str, error: OSError) -> None:
    """What cannot have another name: a directory, or a file that has as many as it can have."""
    found = stat_at(directory, name)
    if found is None:
        return
    if error.errno != errno.EMLINK and not stat.S_ISDIR(found.st_mode):
        raise error
    if not files.there(old):
        files.make_dirs(os.path.dirname(old), mode=0o700)
        os.rename(name, old, src_dir_fd=directory)


def put(place: str, staged: os.stat_result, directory: int, name: str) -> None:
    """One entry; a whiteout takes away what is there."""
    if trees.is_whiteout(staged):
        _unlink(directory, name)
        os.unlink(place)
        return
    if stat.S_ISDIR(staged.st_mode):
        # It stands where a file was, which has been set aside.
        _unlink(directory, name)
    os.rename(place, name, dst_dir_fd=directory)


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
