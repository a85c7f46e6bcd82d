"""What of a migration's folder is its author's: not what editors and systems leave, nor what git ignores.

What git knows is the same in each checkout; bits of mode and links are not where the file system has none.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_FOREIGN = re.compile(
    r"\.DS_Store|\._.*|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd"
    r"|Thumbs\.db|desktop\.ini|\.directory|\.fuse_hidden.*|\.nfs[0-9a-f]{8,}"
    r"|.*~|\.?.+\.sw[a-p]|#.*#|\.#.*|\.git|\.hg|\.svn|\.bzr|\.jj|CVS|_darcs",
    re.DOTALL,
)
# Who runs as root in somebody else's checkout is asked for the same; nothing that its configuration names is run.
_GIT = ("git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false")
_LINK = "120000"
_EXECUTABLE = "100755"


def is_foreign(name: str) -> bool:
    """Whether nobody who writes a migration means a file of this name."""
    return bool(_FOREIGN.fullmatch(name))


@dataclass(frozen=True)
class Checkout:
    """What git knows of files, by their path in the folder: those it ignores, and how those that it has are kept.

    Directories that are ignored as a whole end in a slash.
    """

    ignored: frozenset[str] = frozenset()
    kept: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def ignores(self, path: str) -> bool:
        return path in self.ignored or f"{path}/" in self.ignored

    def executable(self, path: str) -> bool | None:
        """As git has it; None where it does not have it."""
        return self.kept[path] == _EXECUTABLE if path in self.kept else None

    def knows_modes(self) -> bool:
        """Whether the bits of the files here say anything to git."""
        return bool(self.folder and _git(self.folder, "config", "core.fileMode") != ["false\n"])

    def is_link(self, path: str) -> bool:
        """Whether it is one for git, whatever a file system without links makes of it."""
        return self.kept.get(path) == _LINK


def checkout(folder: Path, part: str) -> Checkout:
    """What git knows of what is below ``part`` of ``folder``: nothing where there is no git, or it has no checkout."""
    ignored = _git(folder, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z", "--", part)
    if ignored is None or f"{part}/" in ignored:
        # Of a folder that git is not to see at all it has nothing to say.
        return Checkout()
    kept = {}
    for line in _git(folder, "ls-files", "--stage", "-z", "--", part) or ():
        about, _, path = line.partition("\t")
        kept[path] = about.split(" ")[0]
    return Checkout(frozenset(ignored), kept, folder)


def _git(folder: Path, *words: str) -> list[str] | None:
    # A hook of git's that runs this has variables that name its own repository, by relative paths.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            [*_GIT, "-C", folder, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, env=clean
        )
    except OSError:
        return None
    return [os.fsdecode(one) for one in done.stdout.split(b"\0") if one] if done.returncode == 0 else None
