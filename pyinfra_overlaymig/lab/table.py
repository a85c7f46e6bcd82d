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
    cells = [[_cell(cell, terminal) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, min_width=_longest([column, *(row[index] for row in cells)]))
    for row in cells:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    needed = Measurement.get(console, console.options.update(max_width=_WIDE), table).minimum
    # A table wider than its terminal is wrapped by it, line by line; rich would cut words.
    console.width = max(console.width, needed) if terminal else _WIDE
    console.print(table, crop=False)


def _longest(texts: Iterable[str]) -> int:
    """The length of the longest word, which is the narrowest that a column may be."""
    return max(len(word) for text in texts for word in text.split())


def _cell(text: str, terminal: bool) -> str:
    return text if terminal else text.replace("\n", ", ")
