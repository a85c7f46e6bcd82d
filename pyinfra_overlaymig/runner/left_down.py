"""Services that somebody made by hand and that need one which the running generation does not have: they stay down.

No generation knows of them, so that none waits for them, or goes back because of them. When what they need is there
again they are started again.

  /run/system-migrate/left-down   their names, one a line
"""

from __future__ import annotations

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import files, s6, services, store
from pyinfra_overlaymig.runner.say import warn


def lacks(name: str) -> str:
    """What the service ``name`` needs and nobody has, or has up again; nothing where all is there."""
    known = noted()
    here = services.linked(name)
    needed = services.needed(here if files.there(here) else f"{paths.LIVE}/{paths.SERVICES}/{name}")
    return next((one for one in needed if one in known or not _there(one)), "")


def _there(name: str) -> bool:
    return services.defined(name) or services.is_supervised(name)


def note(name: str, lacking: str) -> None:
    """Says that it stays as it is, and remembers it where it is down."""
    status = s6.read(services.linked(name))
    if (status and status.up) or services.is_down_by_wish(name):
        return
    warn(f"service {name} is left down: it needs {lacking}, which generation {store.current()} does not have")
    if name not in noted():
        files.append_line(_file(), name)


def forget(name: str) -> bool:
    """Whether it was left down; it is not, from now on."""
    known = noted()
    if name not in known:
        return False
    files.write_lines(_file(), [one for one in known if one != name])
    return True


def noted() -> list[str]:
    return files.lines(_file())


def _file() -> str:
    return f"{paths.RUN}/left-down"
