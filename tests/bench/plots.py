"""Draws what was measured, as PNG and SVG: every figure of every series, and how far each line is from its target."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import stats
from tests.bench.line import Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = ("png", "svg")
_COLOURS = ("#1f77b4", "#b0b0b0", "#2ca02c", "#9467bd")


def draw(directory: Path, found: Sequence[Found], title: str) -> str:
    """The files that were written, or why there are none, in words."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - it is optional
    except ImportError:
        return "no plots: matplotlib is not installed (pip install '.[bench]')"
    mpl.use("Agg")
    # The same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "overlaymig"
    drawn = [one for one in found if one.figures]
    if not drawn:
        return "no plots: nothing was measured"
    _overview(directory, drawn, title)
    for name, lines in itertools.groupby(drawn, key=lambda one: one.line.name.partition(".")[0]):
        _group(directory / name, list(lines), title)
    return (
        f"plots in {directory}: {', '.join(sorted(path.name for path in directory.glob('*.svg')))} and the same as PNG"
    )


def _overview(directory: Path, found: Sequence[Found], title: str) -> None:
    """All lines in one picture: what was measured by what is to be reached."""
    figure, (axes,) = _canvas(9, 1.2 + 0.32 * len(found))
    for height, one in enumerate(reversed(found)):
        goal = one.line.at_most or 1.0
        spread = stats.spread(one.figures)
        low, middle, high = (max(value / goal, 1e-3) for value in (spread.low, one.figure or 0.0, spread.high))
        colour = "#2ca02c" if one.verdict == "reached" else "#d62728"
        axes.plot([low, high], [height, height], color=colour, linewidth=4, alpha=0.4, solid_capstyle="round")
        axes.plot([middle], [height], "o", color=colour)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(found)), [one.line.title for one in reversed(found)], fontsize=8)
    axes.set_xlabel("measured / to reach (median and quartiles; left of the line: reached)")
    axes.set_title(title, fontsize=8)
    _save(figure, directory / "overview")


def _group(stem: Path, found: Sequence[Found], title: str) -> None:
    figure, axes = _canvas(9, 0.8 + 1.5 * len(found), len(found))
    for one, place in zip(found, axes, strict=True):
        _strip(place, one)
    figure.suptitle(title, fontsize=8)
    _save(figure, stem)


def _strip(axes: Axes, found: Found) -> None:
    """Each figure as a point, the middle half as a bar, the median as a stroke; the target as a dashed line."""
    names = sorted(found.series, key=lambda name: name == found.line.of)
    for height, (name, colour) in enumerate(
        zip(names, itertools.cycle(reversed(_COLOURS[: len(names)])), strict=False)
    ):
        figures = found.series[name]
        spread = stats.spread(figures)
        axes.barh(height, spread.high - spread.low, left=spread.low, height=0.5, color=colour, alpha=0.35)
        axes.plot([spread.median] * 2, [height - 0.3, height + 0.3], color=colour, linewidth=2.5)
        axes.plot(figures, [height + 0.12 * (n % 3 - 1) for n in range(len(figures))], ".", color=colour, markersize=5)
    if not found.line.over:
        axes.axvline(found.line.at_most, color="black", linewidth=1, linestyle="--")
    elif found.line.over in found.series:
        goal = found.line.at_most * stats.spread(found.series[found.line.over]).median
        axes.axvline(goal, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(left=0)
    axes.set_title(f"{found.line.title}, {found.line.unit}: {found.verdict}", fontsize=8, loc="left")
    axes.tick_params(axis="x", labelsize=8)


def _canvas(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(rows, 1, figsize=(width, height), squeeze=False, layout="constrained")
    return figure, [row[0] for row in axes]


def _save(figure: Figure, stem: Path) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    for kind in _KINDS:
        figure.savefig(stem.with_name(f"{stem.name}.{kind}"), dpi=150, metadata={"Date": None} if kind == "svg" else {})
    plt.close(figure)
