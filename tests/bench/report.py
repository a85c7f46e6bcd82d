"""What is told of a run: a table in the terminal, the same for the README, and all figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import stats
from tests.bench.line import Found

_NOTHING = "-"
COLUMNS = ("line", "measured", "beside it", "ratio", "to reach", "")


def row(found: Found) -> tuple[str, ...]:
    """One line of the table."""
    line = found.line
    mine, other = (found.series.get(name, []) for name in (line.of, line.other))
    beside = f"{line.other}: {shown(other, line.unit)}" if other else _NOTHING
    goal = f"≤ {number(line.at_most)}" + (f" of {line.over}" if line.over else f" {line.unit}")
    ratio = shown(found.ratio, "") if found.ratio else _NOTHING
    measured = shown(mine, line.unit) if mine else _NOTHING
    if line.worst and mine:
        measured += f", worst of {len(mine)}: {number(max(mine))}"
    return line.title, measured, beside, ratio, goal, found.verdict


def shown(figures: Sequence[float], unit: str) -> str:
    """Median, quartiles and their unit."""
    found = stats.spread(figures)
    middle = f"{number(found.median)} {unit}".rstrip()
    return middle if found.low == found.high else f"{middle} ({number(found.low)} to {number(found.high)})"


def number(figure: float) -> str:
    """Three digits that count, and none that does not."""
    if figure >= 100 or figure == int(figure):
        return f"{figure:,.0f}"
    return f"{figure:.3g}"


def show(console: Console, machine: dict[str, str], found: Sequence[Found]) -> None:
    """The machine and the table, for people at a terminal."""
    for key, value in machine.items():
        console.print(f"{key}: {value}", highlight=False, markup=False)
    table = Table(pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for one in found:
        verdict = row(one)[-1]
        style = {"reached": "green", "missed": "red"}.get(verdict.split()[0], "yellow")
        table.add_row(*row(one)[:-1], f"[{style}]{verdict}[/{style}]")
    console.print(table)
    for one in found:
        if one.line.note or one.trouble:
            console.print(f"{one.line.name}: {'; '.join(filter(None, (one.line.note, one.trouble)))}", markup=False)


def markdown(machine: dict[str, str], found: Sequence[Found], command: str) -> str:
    """What the README has."""
    told = "; ".join(f"{key} {value}" for key, value in machine.items() if key not in ("date", "checkout", "disturbed"))
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(row(one) for one in found)]
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in rows]
    head = f"`{command}` at {machine['checkout']}, {machine['date']} ({told}). Medians, with quartiles in brackets.\n"
    disturbed = f"{machine['disturbed']}\n" if "disturbed" in machine else ""
    return "\n".join([head + disturbed, *lines, ""])


def as_json(machine: dict[str, str], found: Sequence[Found], command: str) -> str:
    """All of it, every figure included."""
    lines = [
        {
            **asdict(one.line),
            "series": {
                name: {"figures": all_of, **asdict(stats.spread(all_of))} for name, all_of in one.series.items()
            },
            "ratio": one.ratio,
            "held_against_the_target": one.figure,
            "verdict": one.verdict,
            "trouble": one.trouble,
        }
        for one in found
    ]
    return json.dumps({"command": command, "machine": machine, "lines": lines}, indent=2) + "\n"


def write(directory: Path, machine: dict[str, str], found: Sequence[Found], command: str) -> None:
    """The files that are read later: bench.json and table.md."""
    (directory / "bench.json").write_text(as_json(machine, found, command))
    (directory / "table.md").write_text(markdown(machine, found, command))
