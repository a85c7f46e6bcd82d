"""gc: gives up what is kept only for a person to look at: what the last change of the machine replaced in state, and
what is left of migrations that failed.
"""

from __future__ import annotations

from pyinfra_overlaymig.format.paths import REPLACED, STAGING
from pyinfra_overlaymig.runner import evidence, files, leftovers, lock, recovery, state, store, trees
from pyinfra_overlaymig.runner.say import say, usage


def main(arguments: list[str]) -> int:
    if arguments:
        raise usage("gc takes no arguments", "system-migrate gc")
    store.layout()
    lock.take("gc")
    recovery.recover(live=True)
    kept = False
    for name in files.names(REPLACED):
        kept = True
        say(f"giving up what {name} replaced in state ({_kilobytes(f'{REPLACED}/{name}')} KiB)")
    state.drop_replaced()
    leftovers.sweep()
    for id in evidence.ids():
        kept = True
        say(f"giving up what is left of {id}, which failed ({_kilobytes(f'{STAGING}/{id}')} KiB)")
        evidence.drop(id)
    if not kept:
        say("nothing is kept that could go")
    return 0


def _kilobytes(path: str) -> int:
    return trees.disk_usage(path) >> 10
