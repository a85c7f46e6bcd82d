"""The directories for temporary files are mounts of their own from boot on, and go with the running root.

What lives there lives on: a socket of ssh-agent or tmux would else be refused after a switch, as all that is bound to
an inode.

  temporary/tmp       what is in /tmp; empty at each boot
  temporary/var/tmp   what is in /var/tmp
  temporary/gone.*    what was in /tmp when the machine went down; taken away in the background
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import carry, catch_up, copies, files, linux, mountinfo, store, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pyinfra_overlaymig.runner.mountinfo import Mount

_CLEARED = carry.OWN[0]
_GONE = "gone."


def ours(mounts: Collection[Mount], state: Collection[str]) -> list[str]:
    """Which of them nobody else serves: neither a mount of the base at, above or below it, nor a state path."""
    taken = [one.place for one in mounts if one.place != "/"]
    return [
        place
        for place in carry.OWN
        if not any(paths.is_below(place, other) or paths.is_below(other, place) for other in (*taken, *state))
    ]


def mount() -> None:
    """Mounts those that are not; before a boot's first switch, which carries them. Can be done again."""
    for place in ours(mountinfo.read(1), store.state_paths()):
        # A link, or nothing at all, is the base's own way.
        if files.plain_dir(paths.LIVE + place):
            _prepare(place)
            linux.mount(_own(place), paths.LIVE + place, flags=linux.MS_BIND)


def _own(place: str) -> str:
    return f"{paths.TEMPORARY}{place}"


def _prepare(place: str) -> None:
    own = _own(place)
    files.make_dirs(paths.TEMPORARY, mode=0o700)
    if place == _CLEARED and files.there(own):
        os.rename(own, f"{paths.TEMPORARY}/{_GONE}{os.urandom(8).hex()}")
    files.make_dirs(own)
    copies.take_metadata(paths.LIVE + place, own)
    _take_over(f"{paths.UPPER}/{catch_up.live()}/upper{place}", own)


def _take_over(drifted: str, own: str) -> None:
    """What lay there when the runner before this one had no such mounts: it would be drift that nobody sees."""
    if not files.plain_dir(drifted):
        return
    for entry in trees.entries(drifted):
        if not trees.is_whiteout(entry.stat(follow_symlinks=False)) and not files.there(f"{own}/{entry.name}"):
            os.rename(entry.path, f"{own}/{entry.name}")
    files.drop(drifted)


def clear() -> None:
    """Takes away what was in /tmp before this boot. What refuses stays, and is tried at the next one."""
    for name in files.names(paths.TEMPORARY):
        if name.startswith(_GONE):
            trees.remove_tree(f"{paths.TEMPORARY}/{name}", [])
