"""A generation: an immutable record of a stack."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format import FORMAT, lines
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.ids import valid_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final


class Generation(NamedTuple):
    """``made``: when. ``base``: the identity of what its layers are over; ``layers``: the lowest first.

    ``instead_of``: the generation that was bad, where a boot made this one in its place.
    """

    made: str
    base: str
    instead_of: int | None
    layers: tuple[str, ...]


class Going(NamedTuple):
    """What goes with a layer: the generations that have it, and the layers that mean something only over it."""

    generations: tuple[int, ...]
    layers: tuple[str, ...]


def going(id: str, stacks: Mapping[int, tuple[str, ...]]) -> Going:
    """What goes with the layer ``id``, which is among it, where generations have these ``stacks``.

    A layer is over one stack alone: what lies on it in one generation does so in all.
    """
    those = {n: stack for n, stack in stacks.items() if id in stack}
    kept = {layer for n, stack in stacks.items() if n not in those for layer in stack}
    above = {layer for stack in those.values() for layer in stack[stack.index(id) :]}
    return Going(tuple(sorted(those)), tuple(sorted({id} | (above - kept))))


UNREADABLE: Final = Generation("", "", None, ())
"""Stands for one whose file is not what it should be."""


def parse(text: str) -> Generation:
    """The generation that ``text`` is; FormatError where it is none, or only a part of one."""
    once: dict[str, str] = {}
    layers = []
    for key, value in lines.pairs(lines.whole(text)):
        if key == "layer":
            if not valid_id(value) or value in layers:
                raise FormatError(f"the generation has a layer {value!r}, which cannot be")
            layers.append(value)
        elif once.setdefault(key, value) != value:
            raise FormatError(f"the generation has two lines of {key}")
    if once.get("format") != str(FORMAT):
        raise FormatError(f"the generation has format {once.get('format')}, this program reads {FORMAT}")
    if not once.get("made"):
        raise FormatError("the generation does not say when it was made")
    replaced = once.get("instead-of")
    instead_of = None if replaced is None else lines.number(replaced, "instead-of")
    return Generation(once["made"], once.get("base", ""), instead_of, tuple(layers))


def text(one: Generation) -> str:
    """The file that a generation is."""
    found: list[tuple[str, object]] = [("format", FORMAT), ("made", one.made), ("base", one.base)]
    if one.instead_of is not None:
        found.append(("instead-of", one.instead_of))
    found += [("layer", layer) for layer in one.layers]
    return lines.join(found)
