"""version: this runner's version and the format it reads and writes."""

from __future__ import annotations

from pyinfra_overlaymig.format import FORMAT
from pyinfra_overlaymig.runner.say import answer
from pyinfra_overlaymig.runner.version import VERSION


def main(_: list[str]) -> int:
    answer(f"system-migrate {VERSION} (format {FORMAT})\n")
    return 0
