"""Why a machine refuses what is asked of it: a dry run foretells it from the status, the machine decides by the same
functions, so that the two cannot differ. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format.needs import Unfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    Stack = tuple[str, ...]


class NoGoal(NamedTuple):
    """Why a machine cannot go to a generation; ``lost``: the one of which something is missing, or 0."""

    why: str
    hint: str
    lost: int = 0


class Generations(NamedTuple):
    """Those that a machine keeps. Stacks, and whether they are whole, are asked for one by one: each is a file."""

    numbers: Collection[int]
    stack: Callable[[int], Stack]
    is_whole: Callable[[int], bool]


def goal(wanted: str, kept: Generations) -> Stack | NoGoal:
    """The stack that ``wanted`` stands for, a generation's number or the id that is to be on top."""
    if wanted.isascii() and wanted.isdecimal():
        return _numbered(wanted.lstrip("0") or "0", kept)
    for n in sorted(kept.numbers, reverse=True):
        stack = kept.stack(n)
        if wanted in stack and kept.is_whole(n):
            return stack[: stack.index(wanted) + 1]
    named = wanted or repr(wanted)
    return NoGoal(f"no generation has {named}", "system-migrate status lists generations and what they hold")


def _numbered(wanted: str, kept: Generations) -> Stack | NoGoal:
    """By its digits: int() reads no more than some thousand."""
    if wanted == "0":
        return ()
    n = next((n for n in kept.numbers if str(n) == wanted), None)
    if n is None:
        return NoGoal(f"there is no generation {wanted}", "system-migrate status lists them")
    if not kept.is_whole(n):
        return NoGoal(f"generation {n} is not whole any more", "choose another one", lost=n)
    return kept.stack(n)


def relations(
    id: str, depends: Iterable[str], conflicts: Iterable[str], stack: Mapping[str, Collection[str]]
) -> Iterator[Unfit]:
    """Between the migration ``id`` and those of ``stack``, each with what conflicts with it."""
    for needed in depends:
        if needed not in stack:
            yield Unfit(f"{id} depends on {needed}, which is not applied here", f"apply {needed} first")
    for other in conflicts:
        if other in stack:
            yield Unfit(f"{id} conflicts with {other}, which is applied here", _apart(other, id))
    for other, theirs in stack.items():
        if id in theirs:
            yield Unfit(f"{other}, which is applied here, conflicts with {id}", _apart(other, id))


def _apart(other: str, id: str) -> str:
    return f"go back to before {other}, or leave {id} out"


def stopped(id: str, stop: Iterable[str], here: Collection[str]) -> Iterator[Unfit]:
    """Services that it stops, of those that are ``here`` or that it brings."""
    for name in stop:
        if name not in here:
            yield Unfit(
                f"{id} stops the service {name}, which is not here", "correct its name, or take it out of stop:"
            )


def out_of_order(id: str, newest: str) -> Iterator[Unfit]:
    """In a folder that says strict_order; ``newest``: of those that are applied, and in anybody's order."""
    if newest > id:
        yield Unfit(
            f"{id} is out of order: {newest} is applied already, and its folder says strict_order",
            f"if no machine has it yet, give it an id after {newest}; or take strict_order out of migrations.yaml",
        )


def lacking(missing: Collection[str]) -> Iterator[Unfit]:
    """Of what the runner needs."""
    if missing:
        yield Unfit(
            f"this machine lacks: {', '.join(missing)}", "run machine_prepared, or install these packages in the base"
        )
