"""Prints tables in which no name, id or path is ever broken; it must know nothing of what they hold."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_WIDE = 100_000
"""More columns than any line has: where no terminal is, nothing has to fit."""


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print ``rows`` under ``columns``: fit for a terminal, or for `grep` with one line for each row."""
    terminal = sys.stdout.isatty()
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(_cell(cell, terminal) for cell in row))
    console = Console(markup=False, highlight=False)
    if not terminal:
        console = Console(markup=False, highlight=False, width=_WIDE)
    # FIXME (rescue): on a terminal narrower than the table, rich still cut ids with "…" (tried at 60 and 80
    # columns): give each column min_width = its longest word, or print with overflow "ignore" at natural width.
    needed = Measurement.get(console, console.options.update(max_width=_WIDE), table).minimum
    console.print(table, width=max(console.width, needed), soft_wrap=False, crop=False)


def _cell(text: str, terminal: bool) -> str:
    return text if terminal else text.replace("\n", ", ")
