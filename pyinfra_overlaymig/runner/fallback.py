"""Falling back: a generation that cannot be assembled at boot, or whose boots fail three times in a row, gives way to
the last one that is not known to be bad, by a new generation: history only grows.

  boots                 `generation` and `failed`: how many boots of it in a row did not end with all its services
  ready.
                        A boot is counted before its switch, and taken off when its services are ready
  generations/<n>       a line `instead-of N` says that n was made because N was bad
"""

from __future__ import annotations

from pyinfra_overlaymig.format import lines
from pyinfra_overlaymig.format.paths import RUN, SYSTEM
from pyinfra_overlaymig.runner import files, linux, store
from pyinfra_overlaymig.runner.say import warn

AFTER = 3
_COUNTED = f"{RUN}/counted"
_BOOTS = f"{SYSTEM}/boots"


def target(current: int, stacks: dict[int, tuple[str, ...]], bad: set[tuple[str, ...]], usable: set[int]) -> int:
    """The generation to fall back to, 0 (the base alone) when there is none: the newest one before the current one
    that is usable and whose stack was never bad. One that was bad once is not tried again under another number.
    """
    known = bad | {stacks.get(current, ())}
    return max((n for n in stacks if n < current and n in usable and stacks[n] not in known), default=0)


def fall_back() -> None:
    """Makes it current, as a new generation. It does not run yet."""
    current = store.current()
    all_of_them = {n: store.generation(n) for n in store.generations()}
    bad = {store.stack(one.instead_of) for one in all_of_them.values() if one.instead_of is not None}
    stacks = {n: one.layers for n, one in all_of_them.items()}
    goal = target(current, stacks, bad, {n for n in stacks if store.applied(n)})
    to = store.newest() + 1
    warn(f"falling back from generation {current} to the layers of generation {goal}, as generation {to}")
    store.write_generation(to, stacks.get(goal, ()), instead_of=current)
    linux.syncfs(SYSTEM)
    store.set_current(to)
    forget()


def failed_boots(n: int) -> int:
    """How many boots of generation ``n`` in a row are not known to have gone well."""
    found = dict(lines.pairs(files.read(_BOOTS)))
    return int(found.get("failed", 0)) if found.get("generation") == str(n) else 0


def count(n: int) -> int:
    """One more boot of generation ``n`` begins; counted once in each, however often it is tried in it."""
    if files.first_line(_COUNTED) == str(n):
        return failed_boots(n)
    failed = failed_boots(n) + 1
    files.write_file(_BOOTS, f"generation {n}\nfailed {failed}\n")
    files.write_file(_COUNTED, f"{n}\n")
    return failed


def forget() -> None:
    """All is well, or another generation is current."""
    files.drop(_BOOTS)
