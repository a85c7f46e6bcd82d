"""Crash proof: struck before any system call that changes the machine, it is before or after, and nothing between.

`make crash` strikes before every call of every scenario, in every way; the tests that always run before every k-th.
tests/crash/lanes.py says what else there is to choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from tests.crash import lanes
from tests.crash.crashes import Crashes, crashes_on, must
from tests.crash.modes import Mode
from tests.crash.scenarios import SCENARIOS
from tests.crash.victim import FULL


@pytest.fixture(scope="module")
def crashes(running_lab: labs.Lab, module_disk: Path) -> Iterator[Crashes]:
    # They mostly wait for services to get ready: more machines than processors.
    machines = 6 if FULL else 3
    labs.up(running_lab, machines)
    with crashes_on(running_lab, module_disk, range(1, machines + 1)) as made:
        yield made


PAIRS = [(name, mode) for name, scenario in SCENARIOS.items() for mode in scenario.modes]

if FULL:
    NAME, MODE, FIRST = lanes.begin()
    if NAME:
        PAIRS = PAIRS[PAIRS.index((NAME, Mode(MODE))) :]
    totals: dict[str, int] = {}

    @pytest.mark.parametrize(("name", "mode"), PAIRS, ids=[f"{name}:{mode.value}" for name, mode in PAIRS])
    def test_crashed_anywhere_it_is_before_or_after(crashes: Crashes, name: str, mode: Mode) -> None:
        """Before any call of any verb that writes, and of its recovery: before or after, nothing between."""
        if name not in totals:
            totals.update(lanes.count(crashes, [name]))
        first = FIRST if (name, mode) == PAIRS[0] else 1
        wrong = lanes.strike(crashes, lanes.all_of(name, mode, totals[name], first))
        must(not wrong, "\n\n".join([f"{len(wrong)} went wrong", *wrong]))

else:

    def test_crashed_somewhere_it_is_before_or_after(crashes: Crashes, capsys: pytest.CaptureFixture[str]) -> None:
        """Before every k-th call of all scenarios in all ways: before or after, nothing between."""
        totals = lanes.count(crashes, SCENARIOS)
        k, cases = lanes.every_kth(totals)
        with capsys.disabled():
            print(f"\nevery {k}th of {sum(totals.values())} calls in each way, CRASH_SEED={lanes.SEED}")  # noqa: T201
        wrong = lanes.strike(crashes, cases)
        must(not wrong, "\n\n".join([f"{len(wrong)} went wrong", *wrong]))
