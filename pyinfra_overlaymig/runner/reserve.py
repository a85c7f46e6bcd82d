"""Space and inodes set aside, so that what a full disk has made fail can be taken back on that full disk."""

from __future__ import annotations

import errno
import os

from pyinfra_overlaymig.format.paths import RESERVE
from pyinfra_overlaymig.runner import files

_BYTES = 1 << 20
_INODES = 128


def fill() -> None:
    """Sets it aside, if it is not there. A disk that has no room for it is no reason to stop."""
    if os.path.isdir(RESERVE):
        return
    new = f"{RESERVE}.new"
    try:
        files.drop(new)
        os.mkdir(new, 0o700)
        with open(f"{new}/blocks", "wb") as file:
            # Written, not allocated: blocks that were only promised to a file are not given to another.
            file.write(bytes(_BYTES))
        for number in range(1, _INODES + 1):
            os.close(os.open(f"{new}/{number}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.rename(new, RESERVE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        files.drop(new)


def release() -> None:
    """Gives it back to the disk."""
    files.drop(RESERVE)
