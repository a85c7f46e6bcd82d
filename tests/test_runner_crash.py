"""Crash proof: killed before, or failing at, any command that changes the machine, it is before or after.

`make crash` does it at every command of every scenario, the tests that always run at some.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from tests.crash import FULL, Mode
from tests.crash_scenarios import SCENARIOS, Crashes, crashes_on, must, one_of


@pytest.fixture(scope="module")
def crashes(running_lab: labs.Lab, module_disk: Path) -> Iterator[Crashes]:
    # They mostly wait for services to get ready: more machines than processors.
    machines = 8 if FULL else 3
    labs.up(running_lab, machines)
    with crashes_on(running_lab, module_disk, range(1, machines + 1)) as made:
        yield made


CASES = [(name, mode) for mode in Mode for name, scenario in SCENARIOS.items() if mode in scenario.modes]

if FULL:

    @pytest.mark.parametrize(("name", "mode"), CASES)
    def test_crashed_anywhere_it_is_before_or_after(crashes: Crashes, name: str, mode: Mode) -> None:
        """At any command of any verb that writes, and of its recovery: before or after, nothing between."""
        wrong = crashes.enumerate(name, mode)
        must(not wrong, "\n\n".join([f"{len(wrong)} went wrong", *wrong]))

else:

    def test_crashed_somewhere_it_is_before_or_after(crashes: Crashes) -> None:
        """At one command of each scenario, in each way: before or after, nothing between."""
        reached: list[int] = []
        wrong = crashes.crash(iter([one_of(name, mode) for name, mode in CASES]), reached)
        must(not wrong, "\n\n".join([f"{len(wrong)} went wrong", *wrong]))
        assert len(reached) == len(CASES)
