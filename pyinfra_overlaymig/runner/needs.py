"""Which service comes before which: pure functions over {name: what it needs}. A circle leaves none out."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def order(needs: Mapping[str, Collection[str]]) -> list[str]:
    """All names of ``needs``, each after those that it needs; else by name. What is needed and not there is nothing."""
    found: list[str] = []
    entered: set[str] = set()

    def enter(name: str) -> None:
        # Come back to before it was left, it is in a circle, which is cut here.
        if name in needs and name not in entered:
            entered.add(name)
            for below in sorted(needs[name]):
                enter(below)
            found.append(name)

    for name in sorted(needs):
        enter(name)
    return found


def needing(names: Iterable[str], needs: Mapping[str, Collection[str]]) -> list[str]:
    """``names`` and all that needs them, directly or not, in the order in which they have to stop."""
    users: dict[str, set[str]] = {}
    for name, below in needs.items():
        for one in below:
            users.setdefault(one, set()).add(name)
    wanted = set(names)
    new = set(wanted)
    while new:
        new = {user for one in new for user in users.get(one, ())} - wanted
        wanted |= new
    return order({name: needs.get(name, ()) for name in wanted})[::-1]
