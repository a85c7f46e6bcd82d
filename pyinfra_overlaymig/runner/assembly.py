"""The part of a boot that is done in the base view: mends what the last power-off interrupted, then switches."""

from __future__ import annotations

from collections.abc import Callable

from pyinfra_overlaymig.format.paths import LIVE, SCANDIR, SERVICEDIRS
from pyinfra_overlaymig.runner import (
    base,
    carry,
    fallback,
    files,
    lock,
    recovery,
    store,
    supervision,
    switch,
    temporary,
)
from pyinfra_overlaymig.runner.say import Leave, attempt, say, warn

Work = Callable[[], object]


def assemble() -> None:
    """Makes the newest generation that can be assembled, and has not failed too often, the running root."""
    store.layout()
    lock.take("boot")
    if not attempt(temporary.mount):
        warn(f"{' and '.join(carry.OWN)} are part of the root in this boot: sockets in them end at a switch")
    _switch_somewhere()
    lay_out()
    say(f"generation {store.current()} is running")


def _switch_somewhere() -> None:
    # Twice: what failed may have been the moment's, not the generation's, and can be done again.
    while not attempt(_switch) and not attempt(_switch):
        if not store.stack():
            raise Leave(20, "not even the base alone can be assembled", "look at the lines above")
        fallback.fall_back()


def _switch() -> None:
    recovery.recover(live=False)
    n = store.current()
    if store.stack(n) and fallback.failed_boots(n) >= fallback.AFTER:
        fallback.fall_back()
        n = store.current()
    made_on = store.generation(n).base if n else ""
    if made_on and made_on != base.identity():
        warn(f"the base has changed since generation {n} was made: from {made_on} to {base.identity()}")
    if store.stack(n):
        fallback.count(n)
    switch.live()


def lay_out() -> None:
    """What s6-svscan will find when it starts: the services of the running root, whichever that is."""
    if not attempt(_boot_services):
        warn("some services could not be laid out")


def _boot_services() -> None:
    if not supervision.boot(LIVE):
        raise Leave(20)


def give_up() -> None:
    """The command that the machine is to become cannot be started in this generation: falls back, in this boot."""
    lock.take("boot")
    if not store.stack():
        raise Leave(20, "it cannot be started in the base either", "rebuild the image")
    fallback.fall_back()
    _switch_somewhere()
    for top in (SCANDIR, SERVICEDIRS):
        files.drop(*(f"{top}/{name}" for name in files.names(top)))
    lay_out()
    say(f"generation {store.current()} is running")
