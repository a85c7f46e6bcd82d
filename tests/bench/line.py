"""What a line of the bench is: what is measured of whom, and what is to be reached. A file in lines/ has a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import stats

if TYPE_CHECKING:
    from tests.bench.session import Bench

NOW, SH = "now", "sh"
"""The runner of this checkout, and the one before it, in sh, measured beside it."""


@dataclass(frozen=True)
class Line:
    """One line. ``of``: the series that is to reach ``at_most``; where ``over`` names a series, in ratio to that one.

    ``beside``: the series that is shown beside it, if it is measured and there is no ``over``. ``worst``: not the
    median is held against the target, but the worst of all rounds.
    """

    name: str
    title: str
    unit: str
    at_most: float
    of: str = NOW
    over: str = ""
    beside: str = SH
    worst: bool = False
    note: str = ""

    @property
    def other(self) -> str:
        return self.over or self.beside


@dataclass(frozen=True)
class Group:
    """Lines that are measured together. ``measure`` is stopped after ``minutes`` and keeps the rounds that are whole.

    ``place``: where among the groups. ``quick``: seconds that it takes in a quick run on an idle machine; a group for
    which there are not so many left is left out of that, one of 0 always is.
    """

    name: str
    place: int
    lines: tuple[Line, ...]
    measure: Callable[[Bench], None]
    minutes: float
    quick: float


Series = dict[str, list[float]]


@dataclass
class Found:
    """What was measured of a line: figures by series, in the order of rounds. ``trouble``: why there are no more."""

    line: Line
    series: Series = field(default_factory=dict)
    trouble: str = ""

    @property
    def figures(self) -> list[float]:
        """What is held against the target, of each round."""
        return self.ratio if self.line.over else self.series.get(self.line.of, [])

    @property
    def figure(self) -> float | None:
        """What is held against the target; None where nothing was measured."""
        if not self.figures:
            return None
        return max(self.figures) if self.line.worst else stats.spread(self.figures).median

    @property
    def ratio(self) -> list[float]:
        return stats.ratios(self.series.get(self.line.of, []), self.series.get(self.line.other, []))

    @property
    def verdict(self) -> str:
        """In words: reached, missed and by how much, or why nobody knows."""
        if self.figure is None:
            return f"not measured: {(self.trouble or 'no round was finished').splitlines()[0][:100]}"
        part = stats.missed_by(self.figure, self.line.at_most)
        if part == 0:
            return "reached"
        return f"missed by {self.figure:g}" if part == float("inf") else f"missed by {part:.0%}"


Figures = Mapping[str, float]
"""What one variant measures in one round, by the name of the line; `LINE/SERIES` for another series than its own."""


@dataclass(frozen=True)
class Variant:
    """One side of a round: ``measure`` gives figures that go to ``series`` of the lines it names."""

    series: str
    measure: Callable[[], Figures]
