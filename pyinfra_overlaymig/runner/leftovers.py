"""What is not needed any more: it is removed, and where that cannot be it is put out of the way, named, and no reason
for anything to fail.

  leftovers/<name>.<n>   what could not be removed (a mount below it, a read-only file system); gc tries again
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import SYSTEM
from pyinfra_overlaymig.runner import files, trees
from pyinfra_overlaymig.runner.say import warn

_PLACE = f"{SYSTEM}/leftovers"


def give_up(*paths: str) -> None:
    """These are gone, or are in nobody's way."""
    for path in paths:
        errors: list[OSError] = []
        if not trees.remove_tree(path, errors):
            warn(f"{errors[0].filename} stays: {errors[0].strerror}; gc tries again")
            _set_aside(path)


def _set_aside(path: str) -> None:
    number = 1
    while files.there(place := f"{_PLACE}/{os.path.basename(path)}.{number}"):
        number += 1
    try:
        files.make_dirs(_PLACE, mode=0o700)
        os.rename(path, place)
    except OSError as error:
        # A file system that is read-only: nothing else goes there either.
        warn(f"{path} stays where it is: {error.strerror}")


def sweep() -> None:
    """Tries once more; says what stays."""
    errors: list[OSError] = []
    if not trees.remove_tree(_PLACE, errors):
        warn(f"{errors[0].filename} stays: {errors[0].strerror}")
