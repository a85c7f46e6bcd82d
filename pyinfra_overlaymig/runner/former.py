"""The edition of a migration that was applied and rolled back, where the migration was edited since, or has another
stack below it now: it gives way to the new edition when that is applied, and comes back where that fails.

staging/<id>/former/going   what goes with it: lines `generation N`, `layer ID`. Without it the rest means nothing
staging/<id>/former/layer   what it was, moved aside when the new edition is sealed; an empty file where there was none
staging/<id>/former/record

Whose layer and record have their places is told by that alone: the former's, as long as they are not here.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import generation, lines
from pyinfra_overlaymig.format.paths import LAYERS, MIGRATIONS, STAGING
from pyinfra_overlaymig.runner import fallback, files, leftovers, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra_overlaymig.format.generation import Going


def going(id: str) -> Going:
    """What goes with the layer of ``id``."""
    return generation.going(id, {n: store.stack(n) for n in store.generations()})


def note(directory: str, what: Going) -> None:
    """Says it in a stage that is not in its place yet: from the first moment on, it takes the place of another one."""
    files.make_dirs(f"{directory}/former", mode=0o700)
    found = [*(("generation", n) for n in what.generations), *(("layer", layer) for layer in what.layers)]
    files.write_plain(f"{directory}/former/going", lines.join(found), durable=True)


def is_there(id: str) -> bool:
    """Whether the stage of ``id`` takes the place of an edition before."""
    return files.there(f"{_aside(id)}/going")


def has_layer(id: str) -> bool:
    """Whether the layer that is in its place is the former's."""
    return is_there(id) and not files.there(f"{_aside(id)}/layer")


def has_record(id: str) -> bool:
    """Whether the record that is in its place is the former's."""
    return is_there(id) and not files.there(f"{_aside(id)}/record")


def set_aside(id: str) -> None:
    """Makes room for the new edition. Can be done again."""
    if not is_there(id):
        return
    for aside, place in _places(id):
        if files.there(aside):
            continue
        if os.path.isdir(place):
            os.rename(place, aside)
        else:
            files.mark(aside)


def bring_back(id: str) -> None:
    """The layer and the record of what failed go, and the former's have their places again. Can be done again.

    That there was one is still known after it: else its record would be taken for that of the stage.
    """
    marked = is_there(id)
    for aside, place in _places(id):
        if marked and not files.there(aside):
            continue
        leftovers.give_up(place)
        if marked and os.path.isdir(aside):
            os.rename(aside, place)
        else:
            files.drop(aside)
    if marked:
        _forget_new(id)


def _forget_new(id: str) -> None:
    """A generation with the new edition would be one with the former now, over a stack that it may not mean."""
    old = lines.values(files.read(f"{_aside(id)}/going"), "generation")
    for n in store.generations():
        if id in store.stack(n) and str(n) not in old and n != store.current():
            store.forget_generation(n)
            # Its number is given out again.
            fallback.forget()


def let_go(id: str) -> None:
    """The new edition is applied: what the former was goes, and all that is nothing without it. Can be done again."""
    aside = _aside(id)
    found = list(lines.pairs(files.read(f"{aside}/going")))
    for key, value in found:
        if key == "generation":
            store.forget_generation(int(value))
    for key, value in found:
        if key == "layer" and value != id:
            leftovers.give_up(f"{LAYERS}/{value}", f"{MIGRATIONS}/{value}")
    # Before what was moved aside: without that, the new edition's record would be taken for the former's.
    files.drop(f"{aside}/going")
    leftovers.give_up(aside)


def _aside(id: str) -> str:
    return f"{STAGING}/{id}/former"


def _places(id: str) -> Iterator[tuple[str, str]]:
    """The record last: as long as that of a stage is there without `applied`, its revert is not over."""
    yield f"{_aside(id)}/layer", f"{LAYERS}/{id}"
    yield f"{_aside(id)}/record", f"{MIGRATIONS}/{id}"
