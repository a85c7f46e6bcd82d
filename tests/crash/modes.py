"""What can happen to a machine at one of its runner's system calls."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """What happens at the call whose turn it is."""

    KILL = "kill"
    """SIGKILL to the runner and all it started; `recover` follows."""
    POWER = "power"
    """The machine ends, as without power, and boots again."""
    FAIL = "fail"
    """The call does nothing and answers EIO, once."""
    SPACE = "space"
    """From here on what needs space is answered ENOSPC, until as much as it needs has been freed."""
    BLOCKS = "blocks"
    """The file system of /data is really full from here on, until `Victim.free`."""
    INODES = "inodes"
    """It has no inode left."""


GO_ON = frozenset({Mode.FAIL, Mode.SPACE, Mode.BLOCKS, Mode.INODES})
"""Those in which the runner lives, and has to say by its exit code what it did."""
