"""What a script left where nothing stays: it is told, as a pid file or a socket there was meant to be used."""

from __future__ import annotations

import stat

from pyinfra_overlaymig.format.octal import escape_path
from pyinfra_overlaymig.runner import files, trees
from pyinfra_overlaymig.runner.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from pyinfra_overlaymig.runner.stage import Stage

_MEMORY, _TEMPORARY = ("run", "dev"), ("tmp", "var/tmp")
_SHOWN = 5
_OWN = {"run": ("lock", "migration"), "dev": ("pts",)}
"""What the stage made itself there; of /dev also devices and links."""


def tell(stage: Stage) -> None:
    """Names what is in /run, /tmp and /dev of a stage whose script has ended well; empty files mean nothing."""
    tops = [(stage.root, name) for name in _MEMORY] + [(stage.upper, name) for name in _TEMPORARY]
    found = [path for top, name in tops for path in _left(f"{top}/{name}", name)]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        say(f"what is in no layer, nor on the machine: {' '.join(found[:_SHOWN])}{more}")
        say("what a service needs there, its `prepare` makes at each start")


def _left(top: str, name: str) -> Iterator[str]:
    if not files.plain_dir(top):
        return
    apart = _OWN.get(name, ())
    for path, one in sorted(trees.walk(top, lambda path: path not in apart)):
        kept = not stat.S_ISDIR(one.st_mode) and (one.st_size > 0 or not stat.S_ISREG(one.st_mode))
        if kept and not trees.is_whiteout(one) and not (name == "dev" and _is_device(one)):
            yield escape_path(f"/{name}/{path}")


def _is_device(one: os.stat_result) -> bool:
    return stat.S_ISCHR(one.st_mode) or stat.S_ISBLK(one.st_mode) or stat.S_ISLNK(one.st_mode)
