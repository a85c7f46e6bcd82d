"""A volume as a machine's /data is one: an ext4 with a journal, whatever file system the host has.

An ext4 without a journal, as a host's may be, gives no inode out again for minutes after its file was deleted, and
looks at each of those whenever a file is made: tests that delete whole machines would slow each other down, and the
bench would measure what ran before it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = 64 << 30
"""Bytes. Only what is written takes room on the host."""


@contextmanager
def volume() -> Iterator[Path]:
    """An empty directory on a volume of its own, which is gone at the end with all that it holds."""
    with tempfile.TemporaryDirectory(prefix="overlaymig-test-", dir="/var/tmp") as directory:
        image, top = Path(directory) / "image", Path(directory) / "volume"
        top.mkdir()
        with image.open("wb") as file:
            os.truncate(file.fileno(), _SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", image], check=True)
        subprocess.run(["mount", "-o", "loop,discard", image, top], check=True)
        # From here on the kernel holds it: a killed run leaves a mount, but no file of gigabytes.
        image.unlink()
        try:
            made = top / "disk"
            made.mkdir()
            yield made
        finally:
            subprocess.run(["umount", top], check=True)
